"""Whether a partner's record has the content that was sent. Pure.

Every member that was sent must be there with an equal value; members that the partner has added do not count. `null`
equals absent. Numbers compare exactly by value, also with a number written as a string. Timestamps compare by instant,
texts after NFC normalisation and trimming. `Resource.same` replaces these rules.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# A number of RFC 8259 section 6, of a length that a partner may store.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,63})(?:\.[0-9]{1,64})?(?:[eE][+-]?[0-9]{1,4})?")
# RFC 3339 section 5.6; seconds may be missing, as in ISO 8601.
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,18}))?([Zz]|[+-]\d\d(?::?\d\d)?)", re.ASCII
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001, instants are compared without a zone


def differing_members(sent: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the names of the members that were sent and are not there with an equal value."""
    return [name for name, value in sent.items() if not is_equal(value, found.get(name))]


def is_equal(sent: object, found: object) -> bool:
    """Return whether two JSON values are equal in the sense of this module; numbers are `int`, `Decimal` or `float`."""
    if isinstance(sent, dict) and isinstance(found, dict):
        return not differing_members(sent, found)
    if isinstance(sent, list) and isinstance(found, list):
        return len(sent) == len(found) and all(map(is_equal, sent, found))
    # True is not 1.
    if isinstance(sent, bool) or isinstance(found, bool) or sent is None or found is None:
        return sent is found
    if isinstance(sent, str) and isinstance(found, str):
        return sent == found or _is_same_text(sent, found)
    one, other = _number(sent), _number(found)
    return one is not None and one == other


def is_same_id(sent: str, found: str) -> bool:
    """Return whether two ids are the same, after NFC normalisation and trimming, or as UUIDs (RFC 9562 section 4)."""
    one, other = _normal(sent), _normal(found)
    return one == other or (_UUID.fullmatch(one) is not None and one.lower() == other.lower())


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _is_same_text(sent: str, found: str) -> bool:
    one, other = _normal(sent), _normal(found)
    if one == other:
        return True
    instant = _instant(one)
    return instant is not None and instant == _instant(other)


def _number(value: object) -> Decimal | None:
    if isinstance(value, str):
        value = value.strip()
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, float):
        return Decimal(repr(value))
    return Decimal(value) if isinstance(value, int | Decimal) else None


def _instant(text: str) -> tuple[timedelta, Decimal] | None:
    """Return the time since the epoch, with its fraction of a second apart; None where the text is no timestamp."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    date, time, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}") - _EPOCH
        if zone not in {"Z", "z"}:
            moment -= timedelta(hours=int(zone[:3]), minutes=int(zone[0] + (zone[-2:] if len(zone) > 3 else "0")))  # noqa: PLR2004, "+hh"
    except (ValueError, OverflowError):
        return None
    return moment, Decimal(f"0.{fraction or 0}")
