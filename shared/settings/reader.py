"""Reads single settings and collects what is wrong with them, so that every problem is reported at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shared.auth.token_endpoint import endpoint_problem
from shared.setting_reference import is_reference, reference_problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SettingReader:
    """Reads the settings whose names begin with `prefix`; each problem is one sentence in `problems`.

    A reference that the platform has not resolved is a problem of its own, and no other rule is held against it.
    """

    def __init__(self, environ: Mapping[str, str], prefix: str, problems: list[str] | None = None) -> None:
        self._environ = environ
        self._prefix = prefix
        self.problems: list[str] = [] if problems is None else problems

    def name(self, key: str) -> str:
        """Give the whole name of the setting `key`."""
        return self._prefix + key

    def complain(self, problem: str) -> None:
        """Add a problem; it must name the setting and the rule, and repeat nothing of a value: it may be a secret's."""
        self.problems.append(problem)

    def text(self, key: str) -> str | None:
        """Give the setting's text without white space around it, None where it is missing or empty."""
        text = self._environ.get(self.name(key), "").strip()
        if is_reference(text) and (problem := reference_problem(self.name(key))) not in self.problems:
            self.complain(problem)
        return text or None

    def is_unresolved(self, key: str) -> bool:
        """Tell whether the setting is a reference that the platform has not resolved."""
        return is_reference(self.text(key) or "")

    def _own_text(self, key: str) -> str | None:
        """Give the text that a rule is for: none where there is a reference."""
        text = self.text(key)
        return None if text is None or is_reference(text) else text

    def require(self, key: str, reason: str) -> None:
        """Complain where the setting is missing."""
        if self.text(key) is None:
            self.complain(f"{self.name(key)} is missing: {reason}")

    def url(self, key: str, *, required: bool = False, may_have_query: bool = False) -> str | None:
        """Give an absolute URL: https, or plain http to a loopback address; no credentials or fragment."""
        text = self.text(key)
        if text is None:
            if required:
                self.complain(f"{self.name(key)} is missing")
            return None
        if is_reference(text):
            return text
        problem = endpoint_problem(text)
        if problem is None and "?" in text and not may_have_query:
            problem = "it has a query"
        if problem:
            self.complain(f"{self.name(key)} is not usable: {problem}")
        return text

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """Give one of `choices`."""
        text = self._own_text(key)
        if text is None:
            return default
        if text not in choices:
            self.complain(f"{self.name(key)} must be one of {', '.join(choices)}")
            return default
        return text

    def seconds(self, key: str, default: float, *, at_most: float, may_be_zero: bool = False) -> float:
        """Give a number (of seconds, unless the setting's name says otherwise) over zero and up to `at_most`."""
        text = self._own_text(key)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (0 <= number <= at_most) or (number == 0 and not may_be_zero):
            least = "from 0" if may_be_zero else "over 0 and"
            self.complain(f"{self.name(key)} must be a number {least} up to {at_most:g}")
            return default
        return number

    def whole_number(self, key: str, default: int, *, at_least: int, at_most: int) -> int:
        """Give a whole number from `at_least` to `at_most`."""
        text = self._own_text(key)
        if text is None:
            return default
        # No bound is longer than this, and int() refuses thousands of digits with an error of its own.
        number = int(text) if text.isdecimal() and len(text) <= len(str(at_most)) else None
        if number is None or not at_least <= number <= at_most:
            self.complain(f"{self.name(key)} must be a whole number from {at_least} to {at_most}")
            return default
        return number
