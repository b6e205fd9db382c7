"""Every error that this package raises on purpose.

RelayError
├── SettingsError              app settings are missing or wrong; lists every problem
├── InvalidBusinessError       a record, or an external id, breaks a rule; lists every problem
├── TokenError                 no access token can be had
│   ├── TokenRejectedError     the token endpoint refuses the client (RFC 6749 section 5.2)
│   └── TokenUnavailableError  the token endpoint cannot be reached or makes no sense; passes with time
├── ApiUnavailableError        no response from the partner's API
│   ├── ApiConnectError        the request was not sent
│   └── ApiInterruptedError    the request may have been sent: its fate is unknown
└── DeliveryError              a delivery has failed for good; fails its orchestration
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class RelayError(Exception):
    """The root of every error that this package raises on purpose."""


class SettingsError(RelayError):
    """App settings are missing or wrong.

    `problems` has one sentence for each, naming its setting and the rule; nothing of a value, which may be a secret's.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("The app settings are not usable: " + "; ".join(problems))
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


class InvalidBusinessError(RelayError):
    """A record, or an external id, breaks a rule; `faults` lists every broken one."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class TokenError(RelayError):
    """No access token can be had."""


class TokenRejectedError(TokenError):
    """The token endpoint refuses the client: asking again changes nothing until someone mends the settings.

    `error` is the code of RFC 6749 section 5.2 ("invalid_client", …), `description` the server's words, `status` the
    HTTP status (None where the answer did not come over HTTP).
    """

    def __init__(self, error: str, description: str | None = None, *, status: int | None = None) -> None:
        super().__init__(
            f"The token endpoint refused the client: {error}" + (f" ({description})" if description else "")
        )
        self.error = error
        self.description = description
        self.status = status


class TokenUnavailableError(TokenError):
    """The token endpoint cannot be reached, is in trouble or talks nonsense: a later request may succeed.

    `retry_after` is the server's wish in seconds from now, None where it named none; `status` the HTTP status, if any.
    """

    def __init__(self, reason: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"No access token can be had: {reason}")
        self.status = status
        self.retry_after = retry_after


class ApiUnavailableError(RelayError):
    """The partner's API gave no response."""


class ApiConnectError(ApiUnavailableError):
    """The request was not sent: no connection could be had."""


class ApiInterruptedError(ApiUnavailableError):
    """The request may have been sent: whether the API has acted on it is unknown."""


class DeliveryError(RelayError):
    """A delivery has failed for good: the partner rejects the record, or the deadline has passed."""
