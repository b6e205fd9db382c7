"""Reply: one whole response as the transport read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Reply:
    """A response with its whole body, decompressed. `headers` is case-insensitive.

    `authorization` is the header that the request carried, so that an error can be told from an echo of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    authorization: str | None = field(default=None, repr=False)


def joined(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Give headers with those that came more than once joined by commas (RFC 9110 section 5.3)."""
    # Few responses have any, and httpx's headers take 10 µs.
    is_simple = len({name.lower() for name in headers}) == len(headers)
    return headers if is_simple else httpx.Headers([*headers.items()])
