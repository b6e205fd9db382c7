"""Which test files run the sandbox's host: it is told by what they import.

The host's worker runtime is Azure's for Python 3.13, and cannot be installed on an older one. All other tests run on
every Python that the app runs on.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).parent.parent
TESTS = PROJECT / "tests"
OLDEST_PYTHON = (3, 13)
# The host itself, and what starts it in a process of its own, if only for its --help.
HOST = ("sandbox.host", "sandbox.processes", "tests.host_apps", "tests.documented_commands")


def host_tests() -> list[Path]:
    """Give the test files that import the host, themselves or through other modules of this project."""
    return [path for path in sorted(TESTS.rglob("test_*.py")) if _reaches_host(path)]


def not_collected(python: Sequence[int] = sys.version_info[:3]) -> list[Path]:
    """Give the test files that this Python cannot run."""
    return [] if tuple(python) >= OLDEST_PYTHON else host_tests()


def _reaches_host(test: Path) -> bool:
    # The fixtures of a test file are those of the conftest.py beside it as well.
    seen: set[Path] = set()
    waiting = [test, test.with_name("conftest.py")]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        for module in _imports(path):
            if any(module == host or module.startswith(f"{host}.") for host in HOST):
                return True
            waiting += _files(module)
    return False


@cache
def _imports(path: Path) -> frozenset[str]:
    """Give the modules that a file names in its imports, wherever they stand; of `from a import b` also `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _files(module: str) -> Iterator[Path]:
    path = PROJECT.joinpath(*module.split("."))
    yield path.with_suffix(".py")
    yield path / "__init__.py"
