"""The pages of the documentation, as the tests of them share them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), PROJECT / "infra" / "README.md"])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Give the language and the text of each code block."""
    return [(language, textwrap.dedent(text)) for language, text in BLOCK.findall(page.read_text())]


def inline_codes(page: Path) -> list[str]:
    """Give what stands between backticks in sentences and tables."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text()))
