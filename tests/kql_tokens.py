"""The form of KQL, as the tests read it: tokens, brackets, and operands and operators that take turns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WORDS = {"and", "or", "in", "startswith", "true", "false"}
OPERATORS = {"and", "or", "in", "startswith", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", ",", "[", "]"}
TOKEN = re.compile(r"""\s+|//.*|("[^"\n]*"|\d[\w.]*|\w+|==|!=|<=|>=|[-+*/=<>|;:,()\[\]])""")
BRACKETS = {"(": 1, "[": 1, ")": -1, "]": -1}


class KqlError(Exception):
    """A query says what this reader does not know, or names what there is not."""


def tokens(text: str) -> list[str]:
    """Give the names, numbers, strings and signs of a query, without comments."""
    found: list[str] = []
    position = 0
    while position < len(text):
        token = TOKEN.match(text, position)
        if token is None:
            raise KqlError(f"{text[position : position + 20]!r} is not known")
        found += [token[1]] if token[1] else []
        position = token.end()
    return found


def split(tokens: Sequence[str], separator: str) -> list[list[str]]:
    """Give the parts between separators that are in no brackets."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += BRACKETS.get(token, 0)
        if depth < 0:
            raise KqlError(f"{token} closes nothing")
        if token == separator and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        raise KqlError("a bracket is not closed")
    return parts


def is_name(token: str) -> bool:
    """Tell whether a token may name a column, a table or a function."""
    return re.fullmatch(r"[A-Za-z_]\w*", token) is not None and token not in WORDS


def check_form(expression: Sequence[str]) -> None:
    """Refuse an expression in which operands and operators do not take turns."""
    has_operand = False
    for before, token in zip(["", *expression], expression, strict=False):
        if token == "(":
            # A call, whose name was an operand, or a group.
            is_right = not has_operand or is_name(before)
            has_operand = False
        elif token == ")":
            is_right, has_operand = has_operand or before == "(", True
        elif token in OPERATORS:
            is_right, has_operand = has_operand, token == "]"
        else:
            is_right, has_operand = not has_operand, True
        if not is_right:
            raise KqlError(f"{' '.join(expression)}: {before} {token} is no expression")
    if not has_operand:
        raise KqlError(f"{' '.join(expression)}: an operand is missing")
