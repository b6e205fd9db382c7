"""The sandbox's partner and host as processes of their own, each test with its own on free ports."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.end_to_end.stage import NO_TLS, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    StartStage = Callable[..., Stage]


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Ends what a test has started, the last one first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(timeout=60, limits=limits, verify=NO_TLS, trust_env=False) as client:
        yield client


@pytest.fixture
def start(processes: ExitStack, http: httpx.AsyncClient) -> StartStage:
    """Start a partner and the app against it, with the arguments of `Stage`."""

    def start_stage(*arguments: Any, **options: Any) -> Stage:  # noqa: ANN401, those of Stage
        stage = Stage(processes, *arguments, **options)
        stage.http = http
        return stage

    return start_stage


@pytest.fixture(scope="session")
def shared_stage() -> Iterator[Stage]:
    """One partner and one app for all the tests of a process that ask for nothing special."""
    with ExitStack() as stack:
        yield Stage(stack)


@pytest.fixture
async def stage(shared_stage: Stage, http: httpx.AsyncClient) -> Stage:
    """A partner with nothing in its store and no faults, and the app, whose token it does not know any more."""
    shared_stage.http = http
    await shared_stage.control("POST", "reset")
    return shared_stage
