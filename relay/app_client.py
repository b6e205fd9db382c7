"""Calls to the app's HTTP interface, with retries, and with an error for every answer that ends a command."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx

from relay.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from relay.connection import Connection

# Answers that pass with time. The Functions host sends 429 when it has too many requests (maxOutstandingRequests), and
# 500 when its worker dies. No call of ours does anything twice: batches have idempotency keys.
_PASSING = {429, 500, 502, 503, 504}
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0


class AppClient:
    """The app. Used with `async with`; safe for concurrent calls of one event loop.

    `patience` is how many seconds a call is retried while the app cannot be reached or is overloaded. `notice` hears
    why a call waits.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        patience: float = 3.0,
        notice: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self.patience = patience
        self.notice = notice
        self.sleep = sleep
        self.clock = clock
        self._trouble = ""
        headers = {"user-agent": "relay"} | ({"x-functions-key": connection.key} if connection.key else {})
        self._http = httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(60.0, connect=5.0))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(  # noqa: PLR0913, the parts of a request
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expected: frozenset[int] = frozenset(),
    ) -> httpx.Response:
        """Return a successful answer, or one whose status is in `expected`. `path` is below /api.

        Raises:
            CommandError: every other answer, and none at all; `exit_code` tells which.
        """
        url = f"{self.connection.url}/api/{path}"
        started, wait = self.clock(), _FIRST_WAIT
        while True:
            floor = 0.0
            try:
                response = await self._http.request(method, url, params=params, content=content, headers=headers)
            except httpx.TransportError as exc:
                trouble = f"{self.connection.url} cannot be reached: {exc or type(exc).__name__}"
            except (httpx.InvalidURL, httpx.DecodingError) as exc:
                raise CommandError(ExitCode.UNREACHABLE, f"{self.connection.url}: {exc}") from exc
            else:
                if response.is_success or response.status_code in expected:
                    self._trouble = ""
                    return response
                # Settings that are not usable are a 503, but do not mend themselves.
                is_setting = str(problem(response).get("type", "")).endswith("configuration")
                if response.status_code not in _PASSING or is_setting:
                    raise self._refusal(response)
                trouble = f"The app answers {response.status_code}: {problem_detail(response)}"
                floor = _retry_after(response)
            pause = max(wait, floor)
            if self.clock() - started + pause > self.patience:
                advice = "`relay doctor` finds out why."
                raise CommandError(ExitCode.UNREACHABLE, trouble, advice)
            if trouble != self._trouble:
                # Once, however many calls are under way.
                self._trouble = trouble
                self.notice(f"{trouble}; trying again for up to {self.patience:.0f} s")
            await self.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def json(self, method: str, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the JSON object of a successful answer.

        Raises:
            CommandError: as `call`; also for an answer that is not a JSON object.
        """
        return json_object(await self.call(method, path, params=params))

    def _refusal(self, response: httpx.Response) -> CommandError:
        status, detail = response.status_code, problem_detail(response)
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            given = f"the key of {self.connection.key_source}" if self.connection.key else "a call without a key"
            advice = (
                "Set RELAY_KEY to a function key of the app. "
                "`az functionapp keys list -g GROUP -n APP --query functionKeys.default` shows one."
            )
            return CommandError(ExitCode.KEY_REFUSED, f"The app refuses {given} ({status}).", advice)
        if status == HTTPStatus.NOT_FOUND:
            is_delivery = "/api/deliveries/" in response.request.url.path
            advice = "`relay ls` lists deliveries" if is_delivery else "Check the id"
            return CommandError(ExitCode.NOT_FOUND, detail, f"{advice}, `relay doctor` checks the URL.")
        if response.is_redirect:
            return CommandError(ExitCode.USAGE, f"{self.connection.url} redirects elsewhere.", "Use the app's own URL.")
        advice = "`relay doctor` says more." if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ""
        return CommandError(ExitCode.REFUSED, f"The app answers {status}: {detail}", advice)


def delivery_path(id_: str) -> str:
    """Return the path of a delivery below /api."""
    return f"deliveries/{quote(id_, safe='')}"


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object that an answer holds.

    Raises:
        CommandError: it holds something else, so this is not the app.
    """
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        advice = "Is the URL that of the app? `relay doctor` checks it."
        raise CommandError(ExitCode.UNREACHABLE, f"{response.url.host} does not answer as Business Relay does.", advice)
    return content


def problem(response: httpx.Response) -> dict[str, Any]:
    """Return the problem details of an answer (RFC 9457), {} where there are none."""
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def problem_detail(response: httpx.Response) -> str:
    """Return what a refusal says of itself, in one sentence."""
    details = problem(response)
    return str(details.get("detail") or details.get("title") or response.reason_phrase or "no reason")


def server_time(response: httpx.Response) -> datetime | None:
    """Return the time of the Date header, None where it is missing or malformed."""
    try:
        date = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
