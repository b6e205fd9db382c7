from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Fault, JsonError
from shared.rules import strict_json
from shared.rules.strict_json import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(MIN_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def refusal(text: bytes, depth: int = MAX_DEPTH) -> str:
    with pytest.raises(JsonError) as caught:
        strict_json.decode(text, depth)
    assert caught.value.faults[0] == Fault("", str(caught.value))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@given(VALUES, st.booleans())
def test_valid_json_means_what_it_means_to_the_standard_library(value: object, escape: bool) -> None:  # noqa: FBT001, Hypothesis gives it
    text = json.dumps(value, ensure_ascii=escape)
    assert strict_json.decode(text.encode()) == json.loads(text) == value


@given(st.binary(max_size=40) | st.text('[]{}",:0123456789.eE+-\\ untrlfasd', max_size=40).map(str.encode))
def test_no_text_at_all_raises_anything_else_or_means_anything_else(text: bytes) -> None:
    try:
        value = strict_json.decode(text)
    except JsonError:
        return
    assert value == json.loads(text)


@given(st.dictionaries(TEXT, SCALARS, min_size=1), st.data())
def test_a_duplicate_member_is_always_refused(members: dict[str, Any], data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(sorted(members)))
    pairs = [*members.items(), (twice, data.draw(SCALARS))]
    order = data.draw(st.permutations(pairs))
    text = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in order) + "}"
    wrapped = data.draw(st.sampled_from(["{}", "[{}]", '{{"outer":{}}}', '[1,{{"a":[{}]}}]']))
    assert "more than once" in refusal(wrapped.format(text).encode())


def test_a_duplicate_member_is_found_however_it_is_written() -> None:
    assert refusal(b'{"name":1,"n\\u0061me":1}') == "has the member 'name' more than once in one object"


def test_a_long_name_is_named_by_its_beginning() -> None:
    name = b'"' + b"n" * 5_000 + b'"'
    assert len(refusal(b"{" + name + b":1," + name + b":2}")) < 250


@pytest.mark.timeout(30)  # with the square of the members it took minutes
def test_finding_a_duplicate_in_a_large_object_takes_no_time() -> None:
    members = ",".join(f'"{number}":0' for number in range(100_000))
    assert "'99999' more than once" in refusal(f'{{{members},"99999":1}}'.encode())


@given(st.integers(1, 120), st.lists(st.sampled_from(["[", '{"a":']), min_size=120, max_size=120))
def test_nesting_is_refused_from_one_level_more_than_allowed(depth: int, brackets: list[str]) -> None:
    opening = brackets[:depth]
    closing = ["]" if bracket == "[" else "}" for bracket in reversed(opening)]
    text = "".join([*opening, "0", *closing]).encode()
    assert strict_json.decode(text, depth) == json.loads(text)
    if depth > 1:
        assert refusal(text, depth - 1) == f"is nested deeper than {depth - 1} levels"


@pytest.mark.parametrize("inner", [b"[]", b"{}"])
def test_an_empty_innermost_level_counts(inner: bytes) -> None:
    assert strict_json.decode(b"[" * 31 + inner + b"]" * 31)
    assert refusal(b"[" * 32 + inner + b"]" * 32) == "is nested deeper than 32 levels"


@pytest.mark.parametrize("text", [b"[" * 500_000, b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 100_000])
def test_nesting_without_end_is_refused_like_any_other(text: bytes) -> None:
    assert refusal(text) == "is nested deeper than 32 levels"


def test_brackets_in_texts_and_side_by_side_are_no_levels() -> None:
    text = json.dumps(["[" * 100, "{" * 100, *[[] for _ in range(100)]])
    assert strict_json.decode(text.encode()) == json.loads(text)


@pytest.mark.parametrize("number", [MIN_INTEGER, MAX_INTEGER, 0, -1])
def test_whole_numbers_of_64_bits_are_kept(number: int) -> None:
    assert strict_json.decode(str(number).encode()) == number


@pytest.mark.parametrize("text", [str(MIN_INTEGER - 1), str(MAX_INTEGER + 1), "1" * 21, "-" + "1" * 5_000])
def test_whole_numbers_of_more_than_64_bits_are_refused(text: str) -> None:
    words = refusal(text.encode())
    assert "more than 64 bits" in words
    assert len(words) < 150


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", fullmatch=True), st.booleans())
def test_a_number_means_the_same_whatever_stands_beside_it(number: str, is_text: bool) -> None:  # noqa: FBT001, Hypothesis gives it
    # Numbers are looked at one by one only where something in the text is not as msgspec writes it.
    beside = '"\\u0041"' if is_text else "1e1"

    assert first_of(f"[{number}]") == first_of(f"[{number},{beside}]")


def first_of(text: str) -> object:
    """Give the first value of an array with its type, or why there is none."""
    try:
        value = strict_json.decode(text.encode())
    except JsonError as exc:
        return str(exc)
    assert isinstance(value, list)
    return type(value[0]), value[0]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_kept_as_its_shortest_text(number: float) -> None:
    decoded = strict_json.decode(repr(number).encode())
    assert isinstance(decoded, float)
    assert math.copysign(1, decoded) == math.copysign(1, number)
    assert decoded == number


@pytest.mark.parametrize("text", ["0.10000", "-0.0", "0e999", "1.0e+2", "1E5", "123456789012345680000.0"])
def test_zeros_that_say_nothing_cost_no_digits(text: str) -> None:
    assert strict_json.decode(text.encode()) == float(text)


@pytest.mark.parametrize(
    "text", ["1e400", "-1e400", "1e-400", "0.100000000000000001", "123456789012345678901.5", "0." + "1" * 9_000]
)
def test_fractions_that_no_double_holds_are_refused(text: str) -> None:
    words = refusal(text.encode())
    assert "no double holds" in words
    assert len(words) < 150


@pytest.mark.parametrize("exponent", ["9" * 17, "-" + "9" * 17, "+00" + "9" * 17])
def test_a_zero_is_accepted_with_an_exponent_that_comparisons_can_hold(exponent: str) -> None:
    text = f"0.000e{exponent}".encode()

    assert (strict_json.decode(text), strict_json.decode_exactly(text)) == (0, 0)
    assert "send it as a string" in refusal(text + b"99999")


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\udfff\ud800"', rb'{"\ud83d":1}', rb'["a",{"b":"x\udc00"}]'])
def test_lone_surrogates_are_refused(text: bytes) -> None:
    assert "lone surrogate" in refusal(text)


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xc0\xaf"', '"a"'.encode("utf-16")])
def test_other_encodings_than_utf_8_are_refused_with_their_place(text: bytes) -> None:
    assert refusal(text).startswith("is not UTF-8: ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nul",
        "{",
        "[1,]",
        '{"a":1,}',
        "{'a':1}",
        "{1:1}",
        "[1] 2",
        "01",
        "+1",
        ".5",
        "1.",
        "0x1",
        '"\t"',
        '"\\x"',
        "// no\n1",
        "\ufeff1",
        "\u00a01",
        "True",
        "NaN",
        "[1, Infinity]",
        '{"a": -Infinity}',
    ],
)
def test_what_is_not_json_is_refused_with_its_place(text: str) -> None:
    words = refusal(text.encode())
    assert words.startswith("is not JSON: ")
    assert "line" in words or "is not a JSON value" in words


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": 0.10, "b": 1}', "0.10"),
        (b'\xef\xbb\xbf{"a":99999999999999.99}', "99999999999999.99"),
        (b'{"a":1E2}', "1E+2"),
    ],
)
def test_decodes_fractions_exactly_for_comparisons(text: bytes, value: str) -> None:
    assert str(strict_json.decode_exactly(text)["a"]) == value
    with pytest.raises(JsonError, match="is not JSON"):
        strict_json.decode_exactly(text[:-1])
