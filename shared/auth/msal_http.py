"""What MSAL sends its requests with, and what its failures mean.

Importing this takes about 130 ms, most of it MSAL and requests: it is imported where it is used, and not before.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from shared.auth.endpoint import endpoint_problem
from shared.auth.exchange import MAX_BODY, Answer
from shared.auth.token_response import OK, json_object, token_error
from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from datetime import datetime

    from shared.errors import TokenRejectedError

_CONNECT_TIMEOUT = 5.0  # seconds
_CONFIGURATION = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class MsalResponse:
    """A response as MSAL reads it."""

    status_code: int
    text: str
    headers: Mapping[str, str]


class MsalHttp:
    """An HTTP client for one token request of MSAL: no redirects, bounded in time and size; `answer` has the last one.

    `timeout` is seconds for each exchange. `metadata` keeps the configuration documents of authorities, by URL, from
    one token request to the next.
    """

    def __init__(
        self, session: requests.Session, *, timeout: float, metadata: MutableMapping[str, MsalResponse] | None = None
    ) -> None:
        self.answer: Answer | None = None
        self.secrets: tuple[str, ...] = ()
        self._session = session
        self._timeout = timeout
        self._metadata = {} if metadata is None else metadata

    def get(self, url: str, **request: Any) -> MsalResponse:  # noqa: ANN401 - the keyword arguments of requests
        """Send a GET request, unless it is for metadata that is there."""
        if url in self._metadata:
            return self._metadata[url]
        response = self._exchange("GET", url, request)
        if response.status_code == OK:
            document = self._checked()
            if url.endswith(_CONFIGURATION):
                if endpoint_problem(str(document.get("token_endpoint"))) or "authorization_endpoint" not in document:
                    raise requests.exceptions.InvalidJSONError
                self._metadata[url] = response
        return response

    def post(self, url: str, **request: Any) -> MsalResponse:  # noqa: ANN401 - the keyword arguments of requests
        """Send a POST request; its response is a JSON object, or this raises."""
        form = request.get("data") or {}
        self.secrets = tuple(form[name] for name in ("client_secret", "client_assertion") if name in form)
        response = self._exchange("POST", url, request)
        self._checked()
        return response

    @property
    def last(self) -> tuple[int, Mapping[str, str], bytes]:
        """The last answer's status, headers and body."""
        answer = self.answer or Answer(0, {}, b"")
        return answer.status, answer.headers, answer.body

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _exchange(self, method: str, url: str, request: dict[str, Any]) -> MsalResponse:
        self.answer = None
        deadline = time.monotonic() + self._timeout
        timeouts = (min(_CONNECT_TIMEOUT, self._timeout), self._timeout)
        options = request | {"timeout": timeouts, "allow_redirects": False, "stream": True}
        with self._session.request(method, url, **options) as response:
            body = bytearray()
            for chunk in response.iter_content(4096):
                body += chunk
                if time.monotonic() > deadline:  # requests bounds each read, not their sum
                    raise requests.ReadTimeout
                if len(body) > MAX_BODY:
                    body.clear()
                    break
            headers = {name.lower(): value for name, value in response.headers.items()}
            self.answer = Answer(response.status_code, headers, bytes(body))
        return MsalResponse(response.status_code, body.decode("utf-8", "replace"), headers)

    def _checked(self) -> dict[str, Any]:
        """Give the JSON object in the last answer; anything else is kept from MSAL, which would write it to its log."""
        document = json_object(self.last[2])
        if not document:
            raise requests.exceptions.InvalidJSONError
        return document


def failure_error(http: MsalHttp, failure: Exception, now: datetime) -> TokenRejectedError | TokenUnavailableError:
    """Give the error that a failure of MSAL is, going by the answer that it followed where there was one."""
    answer = http.answer
    if answer is None:
        problem = "does not answer in time" if isinstance(failure, requests.Timeout) else "cannot be reached"
        return TokenUnavailableError(f"the token endpoint {problem}: {type(failure).__name__}")
    trouble = f"MSAL cannot read its answer, {type(failure).__name__}" if answer.status == OK else None
    return token_error(
        answer.status, answer.headers, json_object(answer.body), now=now, secrets=http.secrets, trouble=trouble
    )


def local_session() -> requests.Session:
    """Give a session for an endpoint on this machine, which no proxy of the environment reaches."""
    session = requests.Session()
    session.trust_env = False
    return session
