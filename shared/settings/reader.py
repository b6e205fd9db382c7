"""Reads single settings and collects what is wrong with them, so that every problem is reported at once."""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING

from shared.auth.token_endpoint import endpoint_problem
from shared.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

# How a reference to a secret begins. App Service puts the secret in its place, and leaves it where it cannot.
_REFERENCES = ("@microsoft.keyvault(", "@microsoft.appconfiguration(")
# How alike (difflib's ratio) a name must be to be taken for a slip: behind the right prefix, and in the prefix.
_ALIKE, _PREFIX_ALIKE = 0.75, 0.85


def is_reference(text: str) -> bool:
    """Return whether a setting's value is a reference to a secret that the platform has not resolved."""
    return text.lower().startswith(_REFERENCES)


def reference_problem(name: str) -> str:
    """Return the problem of the setting `name`, whose value is a reference."""
    return (
        f"{name} is a reference that is not resolved: the secret does not exist, the app's identity may not read it, "
        "or the vault cannot be reached"
    )


class SettingReader:
    """Reads the settings whose names begin with `prefix`; each problem is one sentence in `problems`.

    White space around a value is no part of it, and an empty value counts as none. A reference that the platform has
    not resolved is a problem of its own, and breaks no other rule.
    """

    def __init__(self, environ: Mapping[str, str], prefix: str = "") -> None:
        self._environ = environ
        self._prefix = prefix
        self.problems: list[str] = []

    def name(self, key: str) -> str:
        """Return the whole name of the setting `key`."""
        return self._prefix + key

    def complain(self, problem: str) -> None:
        """Add a problem. It names the setting and the rule, and repeats nothing of a value, which may be a secret."""
        if problem not in self.problems:
            self.problems.append(problem)

    def raise_problems(self) -> None:
        """Raise a SettingsError if there is any problem."""
        if self.problems:
            raise SettingsError(self.problems)

    def text(self, key: str) -> str | None:
        """Return the setting's text, None if it is missing or empty."""
        text = self._environ.get(self.name(key), "").strip()
        if is_reference(text):
            self.complain(reference_problem(self.name(key)))
        return text or None

    def checked_text(self, key: str) -> str | None:
        """Return the text if there is one to check: none if it is a reference."""
        text = self.text(key)
        return None if text is None or is_reference(text) else text

    def require(self, key: str, reason: str = "") -> None:
        """Complain if the setting is missing."""
        if self.text(key) is None:
            self.complain(f"{self.name(key)} is missing" + (reason and f": {reason}"))

    def require_one_of(self, keys: Sequence[str], need: str) -> None:
        """Complain unless exactly one of the settings is there; `need` begins the sentence."""
        count = sum(self.text(key) is not None for key in keys)
        if count != 1:
            names = ", ".join(map(self.name, keys))
            self.complain(f"{need} exactly one of {names}" + (f", not {count}" if count else ""))

    def refuse(self, keys: Sequence[str], reason: str) -> None:
        """Complain of each of the settings that is there; `reason` continues the sentence "… is set, which"."""
        for key in keys:
            if self.text(key) is not None:
                self.complain(f"{self.name(key)} is set, which {reason}")

    def url(self, key: str, *, may_have_query: bool = False) -> str | None:
        """Return an absolute URL: https, or plain http to a loopback address; no credentials or fragment."""
        text = self.checked_text(key)
        if text is not None:
            has_query = "?" in text and not may_have_query
            if problem := endpoint_problem(text) or ("it has a query" if has_query else None):
                self.complain(f"{self.name(key)} is not usable: {problem}")
        return self.text(key)

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """Return one of `choices`."""
        text = self.checked_text(key)
        if text is None or text in choices:
            return text or default
        self.complain(f"{self.name(key)} must be one of {', '.join(choices)}")
        return default

    def number(self, key: str, *, at_most: float, may_be_zero: bool = False) -> float | None:
        """Return a number over zero and up to `at_most`, None if it is missing."""
        text = self.checked_text(key)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if 0 < number <= at_most or (number == 0 and may_be_zero):
            return number
        least = "from 0" if may_be_zero else "over 0 and"
        self.complain(f"{self.name(key)} must be a number {least} up to {at_most:g}")
        return None

    def seconds(self, key: str, default: float, *, at_most: float, may_be_zero: bool = False) -> float:
        """Return a number (of seconds, unless the setting's name says otherwise) as `number` does, with a default."""
        number = self.number(key, at_most=at_most, may_be_zero=may_be_zero)
        return default if number is None else number

    def whole_number(self, key: str, default: int, *, at_least: int, at_most: int) -> int:
        """Return a whole number from `at_least` to `at_most`."""
        text = self.checked_text(key)
        if text is None:
            return default
        # No bound is longer than this, and int() refuses thousands of digits with an error of its own.
        if text.isdecimal() and len(text) <= len(str(at_most)) and at_least <= int(text) <= at_most:
            return int(text)
        self.complain(f"{self.name(key)} must be a whole number from {at_least} to {at_most}")
        return default

    def suggest(self, known: Collection[str], families: Sequence[str], others: Collection[str] = ()) -> None:
        """Complain of each variable whose name is nearly that of a known setting, and which stands for no other.

        `known` are whole names, `families` the prefixes of which a known name has one. A name that begins with a prefix
        in `others`, and one that resembles no setting, belongs to somebody else.
        """
        missing = [name for name in known if not self._environ.get(name, "").strip()]
        for name in sorted(self._environ):
            upper = name.upper()
            if name in known or any(upper.startswith(other) for other in others):
                continue
            family = next((each for each in families if upper.startswith(each)), None)
            if family is not None:
                rests = [each.removeprefix(family) for each in missing if each.startswith(family)]
                likely = [family + rest for rest in difflib.get_close_matches(upper[len(family) :], rests, 1, _ALIKE)]
            else:
                likely = [each for each in missing if _has_slip_in_prefix(upper, each, families)]
            if likely:
                self.complain(f"{name} is not a setting: did you mean {max(likely, key=len)}?")


def _has_slip_in_prefix(name: str, known: str, families: Sequence[str]) -> bool:
    family = next(each for each in families if known.startswith(each))
    rest = known.removeprefix(family)
    prefix = name.removesuffix(rest)
    return prefix != name and difflib.SequenceMatcher(None, prefix, family).ratio() >= _PREFIX_ALIKE
