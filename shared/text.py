"""Text for people: cut where it would be too long. Pure."""

from __future__ import annotations


def shortened(text: str, most: int) -> str:
    """Give the text, or its beginning and an ellipsis where it has more than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"
