"""MSAL's requests: it runs in a worker thread, what it sends goes through the event loop, within one deadline.

MSAL has no way to end a request that is under way. Sent from the event loop, it ends with the task that sends it: no
thread waits for a socket, and nothing is sent any more once the caller has gone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

import httpx

from shared.auth.access_token import Answer, token_error
from shared.auth.token_endpoint import discovered_problem, exchange
from shared.errors import TokenError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from datetime import datetime

_T = TypeVar("_T")

_NO_ANSWER = Answer(0, {}, b"")
_CONFIGURATION = "/.well-known/openid-configuration"
_SECRET_FIELDS = ("client_secret", "client_assertion")
_SECRET_HEADERS = ("X-IDENTITY-HEADER",)  # what App Service wants to see before it gives out tokens


@dataclass(frozen=True, slots=True)
class MsalResponse:
    """A response as MSAL reads it."""

    status_code: int
    text: str
    headers: Mapping[str, str]


class MsalHttp:
    """The HTTP client that MSAL is given for one token request; `answer` is the last answer, with status 0 before one.

    `timeout` is seconds for all that is sent, `what` names the server in errors. `metadata` keeps the configuration
    documents of authorities, by URL, from one token request to the next. `get` and `post` are for a worker thread, all
    else is for the event loop.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        what: str,
        *,
        timeout: float,
        metadata: MutableMapping[str, MsalResponse] | None = None,
    ) -> None:
        self.answer = _NO_ANSWER
        self.secrets: list[str] = []
        self._client = client
        self._what = what
        self._timeout = timeout
        self._metadata = {} if metadata is None else metadata
        self._loop = asyncio.get_running_loop()
        self._sending: asyncio.Task[Any] | None = None
        self._ended = False

    async def run(self, ask: Callable[[MsalHttp], _T], now: Callable[[], datetime]) -> _T:
        """Return what `ask`, run in a worker thread, gets from MSAL with this client.

        Raises:
            TokenRejectedError: the server blames the client's configuration.
            TokenUnavailableError: there is no whole answer in time, or it makes no sense to MSAL.
        """
        try:
            async with asyncio.timeout(self._timeout):
                result = await asyncio.to_thread(self._result, ask, now)
        except TimeoutError:
            result = TokenUnavailableError(f"{self._what} did not answer within {self._timeout:g} s")
        finally:
            self._end()
        if isinstance(result, TokenError):
            raise result
        return result

    def _result(self, ask: Callable[[MsalHttp], _T], now: Callable[[], datetime]) -> _T | TokenError:
        """Return an error as a value: raised anew, it has no context, whose text may hold what was sent or came."""
        try:
            return ask(self)
        except TokenError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001, MSAL has no error type for most of what goes wrong in it
            answer = self.answer
            if answer is _NO_ANSWER:
                return TokenUnavailableError(f"MSAL failed with {type(exc).__name__}")
            problem = f"MSAL cannot read its answer, {type(exc).__name__}" if answer.is_success else None
            return token_error(answer, answer.document(), now=now(), secrets=self.secrets, problem=problem)

    def get(self, url: str, *, params: Any = None, headers: Any = None, **_: Any) -> MsalResponse:  # noqa: ANN401, as MSAL calls it
        """Send a GET request, unless it is for metadata that is there."""
        if url in self._metadata:
            return self._metadata[url]
        response = self._exchange("GET", url, params, headers)
        if self.answer.is_success:
            document = self._checked()
            if url.endswith(_CONFIGURATION):
                if discovered_problem(document.get("token_endpoint"), url) or "authorization_endpoint" not in document:
                    raise ValueError("it names no usable endpoint")
                self._metadata[url] = response
        return response

    def post(self, url: str, *, params: Any = None, data: Any = None, headers: Any = None, **_: Any) -> MsalResponse:  # noqa: ANN401, as MSAL calls it
        """Send a POST request with a form; its response is a JSON object, or this raises."""
        form = {name: value for name, value in (data or {}).items() if value is not None}
        self.secrets += [form[name] for name in _SECRET_FIELDS if name in form]
        response = self._exchange("POST", url, params, headers, urlencode(form).encode("ascii"))
        self._checked()
        return response

    def close(self) -> None:
        """Do nothing: the connections are the caller's."""

    def _exchange(self, method: str, url: str, params: Any, headers: Any, content: bytes | None = None) -> MsalResponse:  # noqa: ANN401, as MSAL calls it
        self.answer = _NO_ANSWER
        whole = httpx.URL(url).copy_merge_params(params) if params else httpx.URL(url)
        all_headers = dict(headers or {})
        self.secrets += [all_headers[name] for name in _SECRET_HEADERS if name in all_headers]
        if content is not None:
            all_headers["Content-Type"] = "application/x-www-form-urlencoded"
        sending = self._send(method, whole, all_headers, content)
        self.answer = answer = asyncio.run_coroutine_threadsafe(sending, self._loop).result()
        text = answer.body.decode("utf-8", "replace")
        return MsalResponse(answer.status, text, {name.lower(): value for name, value in answer.headers.items()})

    async def _send(self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes | None) -> Answer:
        if self._ended:
            raise TokenUnavailableError("nobody waits for this token any more")
        self._sending = asyncio.current_task()
        return await exchange(
            self._client, method, url, what=self._what, headers=headers, content=content, timeout=self._timeout
        )

    def _end(self) -> None:
        """End what is under way, and send nothing more; the worker thread ends with it."""
        self._ended = True
        if self._sending is not None:
            self._sending.cancel()

    def _checked(self) -> dict[str, Any]:
        """Return the JSON object in the last answer. MSAL never sees anything else: it would log it."""
        document = self.answer.document()
        if not document:
            raise ValueError("it is no JSON object")
        return document
