"""JSON as this app accepts it: RFC 8259 without what two parsers read differently (RFC 7493, I-JSON).

Refused are NaN, lone surrogates, duplicate members, numbers that neither a double nor a 64-bit integer holds, and
nesting deeper than `MAX_DEPTH`: each raises a JsonError. An accepted text means the same to every parser.

If msgspec writes the decoded value as the same bytes, but for white space, the text has no member twice, no lone
surrogate and no fraction that a double does not hold. Most clients send such texts, and this check takes a third of the
time. Other texts go through the standard library's decoder, which looks at every object and every number.
"""

from __future__ import annotations

import codecs
import json
import math
from collections import Counter
from decimal import Decimal
from typing import Any, Never

import msgspec

from shared.errors import JsonError

MAX_DEPTH = 32
# The range in which every JSON library keeps an integer exact: signed or unsigned 64 bits.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
_LONGEST_INTEGER = len(str(MIN_INTEGER))
# So many significant digits tell every double from its neighbours (IEEE 754); more would be lost.
_DOUBLE_DIGITS = 17
# `Decimal` has exponents of 18 digits.
_EXPONENT_DIGITS = 17
_EXACT_DECODER = msgspec.json.Decoder(float_hook=Decimal)


def decode(text: bytes, depth: int = MAX_DEPTH) -> object:
    """Decode a JSON text in UTF-8, nested at most `depth` levels deep. Floats may be rounded: keep the text."""
    try:
        value = msgspec.json.decode(text)
        # MessagePack, unlike JSON, has no integer of more than 64 bits: it raises an OverflowError.
        msgspec.msgpack.encode(value)
        is_as_written = msgspec.json.encode(value) == msgspec.json.format(text, indent=-1)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        is_as_written = False
    if not is_as_written:
        value = _decode_strictly(text, depth)
    if text.count(b"{") + text.count(b"[") > depth and _is_deeper(value, depth):
        raise JsonError(f"is nested deeper than {depth} levels")
    return value


def decode_exactly(text: bytes) -> Any:  # noqa: ANN401, it is any JSON
    """Decode a JSON text, whatever its rules, with `Decimal` for numbers that have a fraction or an exponent."""
    try:
        return _EXACT_DECODER.decode(text.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError) as exc:
        raise JsonError(f"is not JSON: {exc}") from None


def _decode_strictly(text: bytes, depth: int) -> object:
    try:
        value: object = _STRICT_DECODER.decode(text.decode())
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


def _is_deeper(value: object, levels: int) -> bool:
    # Level by level: a call for each of 300,000 empty objects takes a quarter of a second.
    containers = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        members = [each for one in containers for each in (one.values() if isinstance(one, dict) else one)]
        containers = [each for each in members if isinstance(each, (dict, list))]
    return bool(containers)


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise JsonError(f"has the member {twice[:128]!r} more than once in one object")
    return members


def _exact_float(text: str) -> float:
    number = float(text)
    mantissa, _, exponent = text.lower().partition("e")
    digits = mantissa.replace(".", "").lstrip("-0").rstrip("0")
    is_inexact = math.isinf(number) or len(digits) > _DOUBLE_DIGITS or (digits and not number)
    # A zero may have any exponent, but for `Decimal`, with which contents are compared.
    if is_inexact or len(exponent.lstrip("+-0")) > _EXPONENT_DIGITS:
        raise JsonError(f"has a number that no double holds: {text[:40]}; send it as a string")
    return number


def _exact_integer(text: str) -> int:
    if len(text) <= _LONGEST_INTEGER and MIN_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        return number
    raise JsonError(f"has a whole number of more than 64 bits: {text[:40]}; send it as a string")


def _no_constant(name: str) -> Never:
    raise JsonError(f"is not JSON: {name} is not a JSON value")


_STRICT_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_exact_float, parse_int=_exact_integer
)
