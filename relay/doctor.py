"""Finds out why the app cannot be used, from the configuration here to the partner there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from relay.app_client import json_object, problem, problem_detail, server_time
from relay.connection import DEFAULT_URL
from relay.errors import CommandError, ExitCode
from relay.record_types import read_record_types

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from relay.app_client import AppClient

# Seconds. Tokens are issued with a leeway of a minute or more; a Date header has whole seconds.
MAX_CLOCK_SKEW = 30.0
_GOOD = {True, None, "ok", "healthy", "available", "valid", "reachable"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `advice` says what to do next, "" where nothing is to do."""

    name: str
    exit_code: ExitCode
    detail: str
    advice: str = ""


async def examine(client: AppClient, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> AsyncIterator[Check]:
    """Look at one thing after the other; what rests on a broken one is left out."""
    connection = client.connection
    yield Check(
        "settings of relay", ExitCode.OK, f"{connection.url} ({connection.url_source}), key: {connection.key_source}"
    )
    try:
        health = await client.call("GET", "health", expected=frozenset({503}))
    except CommandError as exc:
        advice = exc.advice
        if exc.exit_code == ExitCode.UNREACHABLE:
            is_here = connection.url == DEFAULT_URL
            advice = "Start the app with `make up`, or set RELAY_URL." if is_here else "Check the URL, and the network."
        yield Check("app", exc.exit_code, exc.message, advice)
        return
    if (sent := server_time(health)) is not None:
        skew = (now() - sent).total_seconds()
        is_right = abs(skew) <= MAX_CLOCK_SKEW
        advice = "" if is_right else "Set the clock that is wrong: tokens and --since depend on it."
        detail = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the app's"
        yield Check("clock", ExitCode.OK if is_right else ExitCode.UNDELIVERED, detail, advice)
    try:
        types = read_record_types(await client.json("GET", "openapi.json"))
        yield Check("key", ExitCode.OK, "accepted; record types: " + ", ".join(each.name for each in types))
        await client.json("GET", "deliveries", {"top": "1"})
        yield Check("deliveries", ExitCode.OK, "can be read")
        deep = await client.call("GET", "health/deep", expected=frozenset({503}))
    except CommandError as exc:
        yield Check("key" if exc.exit_code == ExitCode.KEY_REFUSED else "app", exc.exit_code, exc.message, exc.advice)
        return
    found = False
    for check in _partner_checks(problem(deep)):
        found = True
        yield check
    if not deep.is_success and not found:
        advice = "Mend the app's settings or the partner's access, which the app's log names, and ask again."
        yield Check("app", ExitCode.UNDELIVERED, problem_detail(deep), advice)
    elif deep.is_success and not found:
        yield Check("partners", ExitCode.OK, str(json_object(deep).get("status", "ok")))


def _partner_checks(health: dict[str, Any]) -> list[Check]:
    """Return what /health/deep says: `{"partners": {NAME: {"settings": …, "token": …, "partner": …}}}`.

    A value is "ok", or an object with `status` and `detail`.
    """
    advices = {
        "settings": "Mend the app settings named here, and restart the app.",
        "token": "Check the client's credentials and the token endpoint in the app settings.",
    }
    partners = health.get("partners")
    checks = []
    for name, parts in partners.items() if isinstance(partners, dict) else ():
        for part, said in parts.items() if isinstance(parts, dict) else (("status", parts),):
            status, detail = (said.get("status"), said.get("detail")) if isinstance(said, dict) else (said, None)
            if status in _GOOD:
                checks.append(Check(f"{name} {part}", ExitCode.OK, str(detail or status or "ok")))
            else:
                advice = advices.get(part, "Ask the partner; deliveries wait until it answers again.")
                checks.append(Check(f"{name} {part}", ExitCode.UNDELIVERED, str(detail or status), advice))
    return checks
