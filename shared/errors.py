"""Every error that this package raises on purpose.

RelayError
├── SettingsError                 app settings are missing or wrong; lists every problem
├── ResourceError                 shared/partner.py describes something that cannot work; lists every problem
├── InvalidRecordError            a record or its id breaks a rule; lists every fault
│   └── JsonError                 a text is not JSON as this app accepts it
├── ContentEncodingError          a body is encoded in a way that is not accepted, or is broken
│   └── BodyTooLargeError         a body is larger than its limit, after decompression
├── RefusedError                  a request cannot be fulfilled, now or at all: its answer is a problem
├── DeliveryInputError            an orchestration was started with an input that this app never writes
├── ActivityInterruptedError      an activity was cancelled, or its process is ending
├── TokenError                    no access token can be had
│   ├── TokenRejectedError        the token endpoint blames the client: someone has to mend its configuration
│   └── TokenUnavailableError     the token endpoint cannot be reached or makes no sense; passes with time
├── CredentialError               a client credential is not what it should be; the text repeats nothing of it
└── ApiUnavailableError           no response from the partner's API
    ├── ApiConnectError           the request was not sent
    └── ApiInterruptedError       the request may have been sent: its fate is unknown
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class RelayError(Exception): ...


class SettingsError(RelayError):
    """Each of `problems` is a sentence that names its setting and the rule, and never the value: it may be a secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The app settings are not usable: " + "; ".join(problems))
        self.problems = tuple(problems)


class ResourceError(RelayError):
    """Each of `problems` is a sentence."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("shared/partner.py is not usable: " + "; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule of a record: the member's JSON Pointer (RFC 6901), "" for the whole, and what was expected."""

    pointer: str
    detail: str

    def __str__(self) -> str:
        return f"{self.pointer}: {self.detail}" if self.pointer else self.detail


class InvalidRecordError(RelayError):
    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class JsonError(InvalidRecordError):
    """The detail continues the sentence "The body …"."""

    def __init__(self, detail: str) -> None:
        super().__init__([Fault("", detail)])


class ContentEncodingError(RelayError): ...


class BodyTooLargeError(ContentEncodingError):
    """`limit` is in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body has more than {limit} bytes")


class DeliveryInputError(RelayError): ...


class RefusedError(RelayError):
    """`kind` is the slug of a problem type, `options` are the other arguments of `shared.http.messages.problem`."""

    def __init__(self, kind: str, detail: str, **options: Any) -> None:  # noqa: ANN401, they have several types
        super().__init__(detail)
        self.kind, self.detail, self.options = kind, detail, options


class ActivityInterruptedError(RelayError): ...


class TokenError(RelayError):
    """`status` is that of the server's answer, `retry_after` the seconds it asked for; None where there is none."""

    def __init__(self, text: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class TokenRejectedError(TokenError):
    """`error` is the code (RFC 6749 section 5.2), `description` the server's words."""

    def __init__(
        self, error: str, description: str | None = None, *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        text = f"The token endpoint refused the client: {error}" + (f" ({description})" if description else "")
        super().__init__(text, status=status, retry_after=retry_after)
        self.error, self.description = error, description


class TokenUnavailableError(TokenError):
    """`reason` continues the sentence "No access token can be had: …"."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"No access token can be had: {reason}", status=status, retry_after=retry_after)


class CredentialError(RelayError, ValueError): ...


class ApiUnavailableError(RelayError): ...


class ApiConnectError(ApiUnavailableError): ...


class ApiInterruptedError(ApiUnavailableError): ...
