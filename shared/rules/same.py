"""Whether a partner's record has the content that was sent. Pure.

Every member that was sent must be there with an equal value; members that the partner has added do not count. `null`
equals absent. Numbers compare exactly by value, also with a number written as a string. Timestamps compare by instant,
texts after NFC normalisation and trimming, UUIDs (RFC 9562 section 4) whatever their case and with or without hyphens.
`Resource.same` replaces these rules.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# A number of RFC 8259 section 6, of a length that a partner may store.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,63})(?:\.[0-9]{1,64})?(?:[eE][+-]?[0-9]{1,4})?")
_UUID = re.compile(r"[0-9a-f]{8}(-?)(?:[0-9a-f]{4}\1){3}[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def differing_members(sent: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the names of the members that were sent and are not there with an equal value."""
    return [name for name, value in sent.items() if not is_equal(value, found.get(name))]


def is_equal(sent: object, found: object) -> bool:
    """Return whether two JSON values are equal in the sense of this module; numbers are `int` or `Decimal`."""
    if isinstance(sent, dict) and isinstance(found, dict):
        return not differing_members(sent, found)
    if isinstance(sent, list) and isinstance(found, list):
        return len(sent) == len(found) and all(map(is_equal, sent, found))
    # True is not 1.
    if isinstance(sent, bool) or isinstance(found, bool) or sent is None or found is None:
        return sent is found
    if isinstance(sent, str) and isinstance(found, str):
        if sent == found:
            return True
        one, other = _normal(sent), _normal(found)
        return one == other or ((instant := _instant(one)) is not None and instant == _instant(other))
    number = _number(sent)
    return number is not None and number == _number(found)


def is_same_id(sent: str, found: str) -> bool:
    """Return whether two ids are the same, as texts or UUIDs."""
    return _normal(sent) == _normal(found)


def _normal(text: str) -> str:
    text = unicodedata.normalize("NFC", text).strip()
    return text.replace("-", "").lower() if _UUID.fullmatch(text) else text


def _instant(text: str) -> datetime | None:
    """Return the instant of a timestamp (RFC 3339) to the microsecond, None where the text is none or has no zone."""
    try:
        instant = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return instant if instant.tzinfo is not None else None


def _number(value: object) -> Decimal | None:
    if isinstance(value, str):
        value = value.strip()
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    return Decimal(value) if isinstance(value, int | Decimal) else None
