"""The Prefer header's `wait` (RFC 7240 section 4.3): how long a caller would wait for the result."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Azure's front end gives a request up after 230 s; a margin is left for the answer.
MAX_WAIT = 200.0
# Preferences are separated by commas; one in a quoted string separates nothing.
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_WAIT = re.compile(r'\s*wait\s*=\s*("?)([0-9]+)\1\s*(?:;.*)?', re.IGNORECASE)


def preferred_wait(headers: Mapping[str, str]) -> float:
    """Give the seconds that the caller would wait, 0 where it has no such wish; at most `MAX_WAIT`."""
    for preference in _PREFERENCE.findall(headers.get("prefer", "")):
        # RFC 7240 section 2: of a preference that is there more than once, the first counts.
        if wish := _WAIT.fullmatch(preference):
            return min(float(wish[2]), MAX_WAIT)
    return 0.0
