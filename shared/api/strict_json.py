"""JSON as this app takes it: RFC 8259 without the parts that two parsers read differently (RFC 7493, I-JSON).

No NaN, no lone surrogates, no duplicate members, no number that a double or a 64-bit integer does not hold, and no
deeper than `MAX_DEPTH`. What passes means the same to every parser behind us.

A text that an encoder writes again byte for byte keeps all of that but the depth: what JavaScript and httpx send mostly
is one, at a quarter of the time. Others, with a space after each comma for one, go to the standard library's decoder,
with a watch on every object, and on numbers where one may need it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Never

import msgspec

from shared.errors import Fault

MAX_DEPTH = 32
# The range in which every JSON library keeps an integer exact: signed or unsigned 64 bits.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
_LONGEST_INTEGER = len(str(MIN_INTEGER))
# So many significant digits tell every double from its neighbours (IEEE 754); more would be lost.
_DOUBLE_DIGITS = 17


class JsonError(ValueError):
    """The text is not JSON as this app takes it; `fault` says where and why."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.fault = Fault("", detail)


def decode(text: bytes, depth: int = MAX_DEPTH) -> object:
    """Give the value of a JSON text in UTF-8, nested at most `depth` levels deep.

    Raises:
        JsonError: the text breaks a rule of this module.
    """
    return decode_text(text, depth)[0]


def decode_text(text: bytes, depth: int = MAX_DEPTH) -> tuple[object, bool]:
    """Give the same, and whether msgspec would write the value as that very text.

    Raises:
        JsonError: the text breaks a rule of this module.
    """
    is_as_written = False
    if _may_have_inexact_number(text):
        value: object = _decode_strictly(text, depth, _NUMBERS_DECODER)
    else:
        value, is_as_written = _decode_as_written(text)
        if not is_as_written:
            value = _decode_strictly(text, depth, _DECODER)
    if _may_be_deeper(text, depth) and _is_deeper(value, depth):
        raise JsonError(f"is nested deeper than {depth} levels")
    return value, is_as_written


def _decode_as_written(text: bytes) -> tuple[object, bool]:
    """Give the value, and whether an encoder would write it like that: then it has no member twice, and no constant."""
    try:
        value = msgspec.json.decode(text)
        return value, msgspec.json.encode(value) == text
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None, False


def _decode_strictly(text: bytes, depth: int, decoder: json.JSONDecoder) -> object:
    try:
        value: object = decoder.decode(text.decode())
        # Only an escape can write a lone surrogate, in UTF-8 it is an error of the encoding already.
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as exc:
        raise JsonError(f"is not UTF-8: {exc.reason} at byte {exc.start}") from None
    except UnicodeEncodeError:
        raise JsonError("has a lone surrogate: a \\u escape that is half a character") from None
    except json.JSONDecodeError as exc:
        raise JsonError(f"is not JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})") from None
    except RecursionError:
        raise JsonError(f"is nested deeper than {depth} levels") from None
    return value


def is_plain(text: bytes) -> bool:
    """Tell whether a JSON text that an encoder wrote breaks no rule of this module, without a look at each value.

    An encoder writes UTF-8, no member twice and no constants: what is left are numbers and the depth.
    """
    return not (_may_have_inexact_number(text) or _may_be_deeper(text, MAX_DEPTH))


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise JsonError(f"has the member {twice[:128]!r} more than once in one object")
    return members


def _exact_float(text: str) -> float:
    number = float(text)
    digits = text.lower().partition("e")[0].replace(".", "").lstrip("-0").rstrip("0")
    if math.isinf(number) or len(digits) > _DOUBLE_DIGITS or (digits and not number):
        raise JsonError(f"has a number that no double holds: {text[:40]}; send it as a string")
    return number


def _exact_integer(text: str) -> int:
    if len(text) <= _LONGEST_INTEGER and MIN_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        return number
    raise JsonError(f"has a whole number of more than 64 bits: {text[:40]}; send it as a string")


def _no_constant(name: str) -> Never:
    raise JsonError(f"is not JSON: {name} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant)
_NUMBERS_DECODER = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_float=_exact_float,
    parse_int=_exact_integer,
    parse_constant=_no_constant,
)


# Digits and points become zeros, so that a number is a run of them.
_RUNS = bytes.maketrans(b"123456789.E", b"0000000000e")
_LONG_RUN = b"0" * _DOUBLE_DIGITS


def _may_have_inexact_number(text: bytes) -> bool:
    """Tell whether a number may be long or have an exponent; so may what looks like one in a string."""
    runs = text.translate(_RUNS)
    return _LONG_RUN in runs or b"0e" in runs


def _may_be_deeper(text: bytes, levels: int) -> bool:
    return text.count(b"{") + text.count(b"[") > levels


def _is_deeper(value: object, levels: int) -> bool:
    containers = [value] if isinstance(value, (dict, list)) else []
    # Level by level, each in one go: a call for each of 300,000 empty objects would take a quarter of a second.
    for _ in range(levels):
        if not containers:
            return False
        containers = [
            member
            for container in containers
            for member in (container.values() if isinstance(container, dict) else container)
            if isinstance(member, (dict, list))
        ]
    return bool(containers)
