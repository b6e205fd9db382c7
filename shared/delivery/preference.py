"""The Prefer header's `wait` (RFC 7240 section 4.3): how long a caller would wait for the result."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Azure's front end gives a request up after 230 s; a margin is left for the answer.
MAX_WAIT = 200.0
# Among other preferences, separated by commas; quoted strings are passed over whole.
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


def preferred_wait(headers: Mapping[str, str]) -> float:
    """Give the seconds that the caller would wait, 0 where it has no such wish; at most `MAX_WAIT`."""
    wish = _WAIT.search(headers.get("prefer", ""))
    return min(float(wish[1]), MAX_WAIT) if wish else 0.0
