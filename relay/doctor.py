"""Finds out why the app cannot be used, from the configuration here to the partner there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from relay.app_client import problem, problem_detail, server_time
from relay.connection import DEFAULT_URL
from relay.errors import CommandError, ExitCode
from relay.record_types import read_record_types

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from relay.app_client import AppClient

# Seconds. Tokens are issued with a leeway of a minute or more; a Date header has whole seconds.
MAX_CLOCK_SKEW = 30.0
# What /health/deep says of a partner, and what to do.
_ADVICE = {
    "settings": "Mend these app settings, and restart the app.",
    "token": "Check the client's id, its credentials and the token endpoint in the app settings.",
    "partner": "Ask the partner. Deliveries wait until it answers again.",
}


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
        if exc.exit_code == ExitCode.NOT_FOUND:
            advice = "Another server answers there, or the URL is not the root of the app: check it."
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
    partners = problem(deep).get("partners")
    for name, health in partners.items() if isinstance(partners, dict) else ():
        yield _partner_check(name, health)
    if not partners and not deep.is_success:
        yield Check("partners", ExitCode.UNDELIVERED, problem_detail(deep), "The app's log names the reason.")


def _partner_check(name: str, health: dict[str, Any]) -> Check:
    """Return what is said of one partner: "ok" or "unavailable" of its parts, as far as they were tried."""
    parts = {part: str(health[part]) for part in _ADVICE if part in health}
    bad = next((part for part, status in parts.items() if status != "ok"), None)
    words = ", ".join(f"{part} {status}" for part, status in parts.items())
    if bad is None:
        return Check(name, ExitCode.OK, words)
    return Check(name, ExitCode.UNDELIVERED, f"{words}: {health.get('detail', 'no reason')}", _ADVICE[bad])
