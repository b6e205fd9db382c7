"""The sandbox's partner and host as processes of their own, each test with its own on free ports."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import httpx
import pytest

from tests.end_to_end.stage import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence


class StartStage(Protocol):
    def __call__(self, partner: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Stage: ...


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Ends what a test has started, the last one first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start(processes: ExitStack) -> StartStage:
    """Start a partner and the app against it."""

    def start_stage(partner: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Stage:
        return Stage(processes, partner, environ or {})

    return start_stage


@pytest.fixture(scope="session")
def shared_stage() -> Iterator[Stage]:
    """One partner and one app for all the tests of a process that ask for nothing special."""
    with ExitStack() as stack:
        yield Stage(stack, [], {})


@pytest.fixture
async def stage(shared_stage: Stage, http: httpx.AsyncClient) -> Stage:
    """A partner with nothing in its store and no faults, and the app, whose token it does not know any more."""
    response = await http.post(f"{shared_stage.partner.url}/sandbox/reset")
    assert response.status_code == 204
    return shared_stage


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        yield client
