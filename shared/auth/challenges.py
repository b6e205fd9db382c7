"""The challenges of a WWW-Authenticate header (RFC 9110 section 11.6.1), and what they say of the access token."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # a "token" of RFC 9110 section 5.6.2
# Some servers leave the quotes out, also around a URL: a plain value is whatever does not separate.
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^" \t,;][^ \t,;]*))')
# The lookaheads keep these two from ending in the middle of something else.
_SCHEME = re.compile(rf"({_WORD})(?=[ \t,;]|$)")
_TOKEN68 = re.compile(r"[ \t]+([0-9A-Za-z._~+/-]+=*)(?=[ \t]*(?:[,;]|$))")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(slots=True)
class Challenge:
    """One challenge: its scheme in lower case, and either parameters (names in lower case) or a token68."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)
    token68: str | None = None


def parse_challenges(value: str) -> list[Challenge]:
    """Give the challenges of one WWW-Authenticate value.

    Commas separate challenges and parameters alike, so the list is read word by word; a missing comma is forgiven, a
    semicolon in its place too.
    Where something follows no grammar, the rest is left out: what stands before it is still meant.
    """
    challenges: list[Challenge] = []
    position = 0
    while True:
        while value[position : position + 1] in {" ", "\t", ",", ";"}:
            position += 1
        if challenges and (parameter := _PARAMETER.match(value, position)):
            name, quoted, plain = parameter.groups()
            text = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
            challenges[-1].parameters.setdefault(name.lower(), text)
            position = parameter.end()
        elif scheme := _SCHEME.match(value, position):
            challenges.append(Challenge(scheme[1].lower()))
            position = scheme.end()
            if token68 := _TOKEN68.match(value, position):
                challenges[-1].token68 = token68[1]
                position = token68.end()
        else:
            return challenges


def may_concern_token(values: Iterable[str]) -> bool:
    """Tell whether a 401 with these WWW-Authenticate values may be about the access token itself.

    It is not where the Bearer challenges name errors, and none of them is "invalid_token" (RFC 6750 section 3.1): a new
    token would not mend an insufficient scope.
    """
    challenges = [challenge for value in values for challenge in parse_challenges(value)]
    errors = {
        challenge.parameters["error"].strip("'").lower()  # some quote it so
        for challenge in challenges
        if challenge.scheme == "bearer" and "error" in challenge.parameters
    }
    return not errors or "invalid_token" in errors
