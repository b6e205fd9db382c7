"""What a partner answers, and what a function of `shared/partner.py` makes of an answer to a post."""

from __future__ import annotations

import math
from collections.abc import Mapping  # noqa: TC003, msgspec reads the annotations
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, get_args

import msgspec

from shared.errors import ResourceError

VerdictKind = Literal["created", "exists", "rejected", "deferred", "uncertain"]


class ApiResponse(msgspec.Struct, frozen=True):
    """One whole response of a partner's API, whatever its status; `headers` is case-insensitive.

    `body` is decompressed. `content` is its JSON (numbers with a fraction are `Decimal`), None where there is none.
    `is_readable` is False where the body should be JSON and is not: such a success proves nothing. `is_html` marks a
    page, which a proxy or a login sends. `problem` has the problem details (RFC 9457) that an error gives, {} where
    there are none; `retry_after` is in seconds from the response, None where the partner named no time.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    content: Any = None
    problem: dict[str, Any] = {}
    is_readable: bool = True
    is_html: bool = False
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004, RFC 9110 section 15.3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `judge=` makes of an answer to a post.

    `created`: the partner has stored the record. `exists`: it had the record before. `rejected`: it will never accept
    it. `deferred`: it has not acted on it; try again. `uncertain`: it may have stored it; look it up first.
    `retry_after` is in seconds; a `Decimal`, as an answer's content has it, becomes a float.
    """

    kind: VerdictKind
    reason: str | None = None
    retry_after: float | None = None

    def __post_init__(self) -> None:
        wait = self.retry_after
        if self.kind not in get_args(VerdictKind):
            raise ResourceError([f"Verdict({self.kind!r}): the kind must be one of {', '.join(get_args(VerdictKind))}"])
        if not (isinstance(wait, int | float | Decimal | None) and math.isfinite(wait or 0)):
            raise ResourceError([f"Verdict({self.kind!r}): retry_after={wait!r} must be a finite number"])
        object.__setattr__(self, "retry_after", None if wait is None else float(wait))
