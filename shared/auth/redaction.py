"""Removes secrets from texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Redactor:
    """Replaces secrets in texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def redact(self, text: str) -> str:
        """Return the text with `[redacted]` in place of each secret."""
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return text
