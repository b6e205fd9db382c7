"""Every error that this package raises on purpose.

RelayError
├── SettingsError                 app settings are missing or wrong; lists every problem
├── ResourceError                 shared/partner.py describes something that cannot work; lists every problem
├── InvalidRecordError            a record or its id breaks a rule; lists every fault
│   └── JsonError                 a text is not JSON as this app accepts it
├── ContentEncodingError          a body is encoded in a way that is not accepted, or is broken
│   └── BodyTooLargeError         a body is larger than its limit, after decompression
├── ProblemError                  ends the handling of a request with a problem response
├── DeliveryInputError            an orchestration was started with an input that this app never writes
├── DeliveryRefusedError          a request about a delivery cannot be fulfilled, now or at all
├── ActivityInterruptedError      an activity was cancelled, or its process is ending
├── TokenError                    no access token can be had
│   ├── TokenRejectedError        the token endpoint blames the client: someone has to mend its configuration
│   └── TokenUnavailableError     the token endpoint cannot be reached or makes no sense; passes with time
├── CredentialError               a client credential is not what it should be
├── TokenStoreError               the shared token store fails
└── ApiUnavailableError           no response from the partner's API
    ├── ApiConnectError           the request was not sent
    └── ApiInterruptedError       the request may have been sent: its fate is unknown
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class RelayError(Exception):
    """The root of every error that this package raises on purpose."""


class SettingsError(RelayError):
    """App settings are missing or wrong.

    `problems` has one sentence for each, naming its setting and the rule. They never repeat a value, which may be a
    secret.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The app settings are not usable: " + "; ".join(problems))
        self.problems = tuple(problems)


class ResourceError(RelayError):
    """`shared/partner.py` describes something that cannot work; `problems` has one sentence for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("shared/partner.py is not usable: " + "; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule of a record.

    `pointer` is the JSON Pointer (RFC 6901) of the member, "" for the whole; `detail` says what was expected.
    """

    pointer: str
    detail: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.detail}" if self.pointer else self.detail


class InvalidRecordError(RelayError):
    """A record or its id breaks a rule; `faults` lists every broken one."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class JsonError(InvalidRecordError):
    """A text is not JSON as this app accepts it; the detail continues the sentence "The body …"."""

    def __init__(self, detail: str) -> None:
        super().__init__([Fault("", detail)])


class ContentEncodingError(RelayError):
    """A body is encoded in a way that is not accepted, or is not what its encoding says."""


class BodyTooLargeError(ContentEncodingError):
    """A body has more than `limit` bytes after decompression."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body has more than {limit} bytes")
        self.limit = limit


class ProblemError(RelayError):
    """Ends the handling of a request with the problem response `reply`, a `shared.http.messages.Reply`."""

    def __init__(self, reply: Any) -> None:  # noqa: ANN401, the tree of errors imports no room
        super().__init__(reply.status)
        self.reply = reply


class DeliveryInputError(RelayError):
    """An orchestration was started with an input that this app never writes."""


class DeliveryRefusedError(RelayError):
    """A request about a delivery cannot be fulfilled.

    `status` is that of the problem response: 400 the request makes no sense, 404 there is no such delivery, 409 it is
    in another state, 503 Durable Functions does not answer. `retry_after` is in seconds.
    """

    def __init__(self, status: int, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after


class ActivityInterruptedError(RelayError):
    """An activity was cancelled, or its process is ending: a `BaseException` must not leave a function."""


class TokenError(RelayError):
    """No access token can be had.

    `status` is the HTTP status of the answer, None where there was none; `retry_after` the seconds after which the next
    token request is worth trying, None where nobody named a time.
    """

    status: int | None = None
    retry_after: float | None = None


class TokenRejectedError(TokenError):
    """The token endpoint blames the client (RFC 6749 section 5.2): someone has to mend its configuration.

    `error` is the code ("invalid_client", "unauthorized_client", "invalid_scope", "invalid_grant"), `description` the
    server's words.
    """

    def __init__(
        self,
        error: str,
        description: str | None = None,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            f"The token endpoint refused the client: {error}" + (f" ({description})" if description else "")
        )
        self.error = error
        self.description = description
        self.status = status
        self.retry_after = retry_after


class TokenUnavailableError(TokenError):
    """The token endpoint cannot be reached, is in trouble or makes no sense: a later request may succeed."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"No access token can be had: {reason}")
        self.status = status
        self.retry_after = retry_after


class CredentialError(RelayError, ValueError):
    """A client credential is not what it should be; the text says how and repeats nothing of it."""


class TokenStoreError(RelayError):
    """The shared token store is down, or answers with nonsense."""


class ApiUnavailableError(RelayError):
    """The partner's API gave no response."""


class ApiConnectError(ApiUnavailableError):
    """The request was not sent: no connection could be had."""


class ApiInterruptedError(ApiUnavailableError):
    """The request may have been sent: whether the API has acted on it is unknown."""
