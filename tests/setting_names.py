"""The names of all app settings, as `Settings` itself asks for them."""

from __future__ import annotations

import contextlib

from shared.errors import SettingsError
from shared.settings import Settings


class _Asked(dict[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str:  # type: ignore[override]  # narrower than dict's overloads
        self.names.add(key)
        return default or ""


def setting_names() -> set[str]:
    """Give the name of every app setting that `Settings.from_environ` reads."""
    asked = _Asked()
    with contextlib.suppress(SettingsError):
        Settings.from_environ(asked)
    return asked.names
