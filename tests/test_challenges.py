from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.challenges import Challenge, may_concern_token, parse_challenges

WORD = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=8)
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        ("", []),
        (" , ,", []),
        ("Bearer", [Challenge("bearer")]),
        ("BEARER Realm=x", [Challenge("bearer", {"realm": "x"})]),
        (
            'Bearer realm="a, b=c", error="invalid_token"',
            [Challenge("bearer", {"realm": "a, b=c", "error": "invalid_token"})],
        ),
        (r'Bearer realm="say \"hi\" \\ \o"', [Challenge("bearer", {"realm": r'say "hi" \ o'})]),
        ('Bearer realm=""', [Challenge("bearer", {"realm": ""})]),
        (
            'Bearer realm = "x" , error\t=\tinvalid_token',
            [Challenge("bearer", {"realm": "x", "error": "invalid_token"})],
        ),
        # RFC 9110 section 11.6.1 gives this one as an example of a list of challenges.
        (
            'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
            [
                Challenge("newauth", {"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
                Challenge("basic", {"realm": "simple"}),
            ],
        ),
        ("Negotiate, Bearer error=x", [Challenge("negotiate"), Challenge("bearer", {"error": "x"})]),
        ("Negotiate YII+/a==, NTLM", [Challenge("negotiate", token68="YII+/a=="), Challenge("ntlm")]),
        ("Negotiate abc=, Bearer", [Challenge("negotiate", token68="abc="), Challenge("bearer")]),
        ("Basic , , realm=x", [Challenge("basic", {"realm": "x"})]),
        ("Bearer error=a, error=b", [Challenge("bearer", {"error": "a"})]),
        ("Basic Bearer error=x", [Challenge("basic"), Challenge("bearer", {"error": "x"})]),
        # What follows no grammar ends the list; what stands before it counts.
        ('Bearer error=x, realm="open', [Challenge("bearer", {"error": "x"})]),
        ("Bearer error=x, =y, Basic", [Challenge("bearer", {"error": "x"})]),
        ('Bearer error=", realm=x', [Challenge("bearer")]),
        ("error=x", []),
        # Some servers leave the quotes out.
        (
            'Bearer error_uri=https://x.example/y?z=1#top, error="x"',
            [Challenge("bearer", {"error_uri": "https://x.example/y?z=1#top", "error": "x"})],
        ),
        (
            "Bearer scope=api://x/.default error=x, Basic realm=a@b",
            [Challenge("bearer", {"scope": "api://x/.default", "error": "x"}), Challenge("basic", {"realm": "a@b"})],
        ),
        ('Bearer realm=a"b, error=x', [Challenge("bearer", {"realm": 'a"b', "error": "x"})]),
        # Some write semicolons.
        ('Bearer realm="a"; error=x; Basic', [Challenge("bearer", {"realm": "a", "error": "x"}), Challenge("basic")]),
        (
            "Negotiate abc=; NTLM; Basic",
            [Challenge("negotiate", token68="abc="), Challenge("ntlm"), Challenge("basic")],
        ),
        # Some leave the commas out.
        ('Bearer realm="a" error=x scope="b c"', [Challenge("bearer", {"realm": "a", "error": "x", "scope": "b c"})]),
        ('Bearer error="x"y', [Challenge("bearer", {"error": "x"}), Challenge("y")]),
    ],
)
def test_reads_challenges_word_by_word(value: str, challenges: list[Challenge]) -> None:
    assert parse_challenges(value) == challenges


@given(
    st.lists(
        st.tuples(WORD, st.dictionaries(WORD.map(str.lower), TEXT, max_size=3)),
        max_size=4,
    )
)
def test_reads_whatever_follows_the_grammar(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    value = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(text)}" for name, text in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges(value) == [Challenge(scheme.lower(), parameters) for scheme, parameters in challenges]


@given(st.text("Bearer error=\"\\, \tx'%;/:", max_size=60))
def test_reads_anything_without_an_error(value: str) -> None:
    schemes = [challenge.scheme for challenge in parse_challenges(value)]
    assert all(scheme in value.lower() for scheme in schemes)


@pytest.mark.parametrize(
    "value",
    [
        "a " * 50_000,
        "a=" * 50_000,
        "Bearer a=" + '"' + "\\" * 100_000,
        "Bearer " + "a" * 100_000 + '"',
        "a" + " " * 100_000 + "=",
        "Bearer a=" + "/" * 100_000,
        "Bearer " + "a=/ " * 25_000,
    ],
)
def test_a_hostile_header_costs_no_more_than_its_length(value: str) -> None:
    began = time.perf_counter()
    parse_challenges(value)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("values", "concerns"),
    [
        ([], True),
        ([""], True),
        (["garbage =="], True),
        (["Basic realm=x"], True),
        (["Basic error=insufficient_scope"], True),
        (["Bearer"], True),
        (["bearer ERROR=INVALID_TOKEN"], True),
        (["Bearer error=insufficient_scope"], False),
        (["Bearer error=invalid_request", "Bearer error=invalid_token"], True),
        (["Bearer realm=a, Bearer error=invalid_request"], False),
        (["Bearer authorization_uri=https://login.example/x, error=insufficient_claims"], False),
        (["Bearer error=invalid_token; realm=a"], True),
        (["Bearer error='invalid_token'"], True),
        (["Bearer error='insufficient_scope'"], False),
    ],
)
def test_an_error_other_than_invalid_token_does_not_concern_the_token(values: list[str], *, concerns: bool) -> None:
    assert may_concern_token(values) is concerns
