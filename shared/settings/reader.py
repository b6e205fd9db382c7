"""Reads single settings and collects what is wrong with them, so that every problem is reported at once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from shared.auth.token_endpoint import endpoint_problem
from shared.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

_Number = TypeVar("_Number", int, float)
# How a reference to a secret begins. App Service puts the secret in its place, and leaves it where it cannot.
_REFERENCES = ("@microsoft.keyvault(", "@microsoft.appconfiguration(")
# A slip is within so many characters next to each other. Names that differ in the first ones are other software's.
_SLIP, _ALIKE = 2, 3


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

    def has(self, key: str) -> bool:
        """Return whether the setting is there, and not empty."""
        return bool(self._environ.get(self.name(key), "").strip())

    def text(self, key: str) -> str | None:
        """Return the setting's text, None if it is missing, empty or a reference."""
        text = self._environ.get(self.name(key), "").strip()
        if not text.lower().startswith(_REFERENCES):
            return text or None
        self.complain(
            f"{self.name(key)} is a reference that is not resolved: the secret does not exist, the app's identity "
            "may not read it, or the vault cannot be reached"
        )
        return None

    def require(self, key: str, reason: str = "") -> str:
        """Return the setting's text; complain if it is missing."""
        if not self.has(key):
            self.complain(f"{self.name(key)} is missing" + (reason and f": {reason}"))
        return self.text(key) or ""

    def require_one_of(self, keys: Sequence[str], need: str) -> None:
        """Complain unless exactly one of the settings is there; `need` begins the sentence."""
        count = sum(map(self.has, keys))
        if count != 1:
            names = ", ".join(map(self.name, keys))
            self.complain(f"{need} exactly one of {names}" + (f", not {count}" if count else ""))

    def refuse(self, keys: Sequence[str], reason: str) -> None:
        """Complain of each of the settings that is there; `reason` continues the sentence "… is set, which"."""
        for key in keys:
            if self.has(key):
                self.complain(f"{self.name(key)} is set, which {reason}")

    def url(self, key: str, *, may_have_query: bool = False) -> str | None:
        """Return an absolute URL: https, or plain http to a loopback address; no credentials or fragment."""
        text = self.text(key)
        if text is not None:
            has_query = "?" in text and not may_have_query
            if problem := endpoint_problem(text) or ("it has a query" if has_query else None):
                self.complain(f"{self.name(key)} is not usable: {problem}")
        return text

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """Return one of `choices`."""
        text = self.text(key)
        if text is None or text in choices:
            return text or default
        self.complain(f"{self.name(key)} must be one of {', '.join(choices)}")
        return default

    def number(self, key: str, default: _Number, *, least: float, most: float) -> _Number:
        """Return a number from `least` to `most`, a whole one if `default` is one."""
        text = self.text(key)
        if text is None:
            return default
        with suppress(ValueError):
            if least <= (number := type(default)(text)) <= most:
                return number
        kind = "whole number" if isinstance(default, int) else "number"
        self.complain(f"{self.name(key)} must be a {kind} from {least:.10g} to {most:.10g}")
        return default

    def suggest(self, known: AbstractSet[str], others: AbstractSet[str] = frozenset()) -> None:
        """Complain of each variable whose name is nearly a `known` one, unless it is one of the `others`."""
        names = sorted(known)
        for name in sorted(self._environ.keys() - known - others):
            meant = next((each for each in names if _is_slip(name.upper(), each)), None)
            if meant is not None:
                self.complain(f"{name} is not a setting: did you mean {meant}?")


def _is_slip(name: str, known: str) -> bool:
    if name[:_ALIKE] != known[:_ALIKE] or abs(len(name) - len(known)) > _SLIP:
        return False
    short, long = sorted((name, known), key=len)
    places = range(_ALIKE, len(long) - 1)
    return any(short.startswith(long[:at]) and short.endswith(long[at + _SLIP :]) for at in places)
