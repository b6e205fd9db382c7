"""Importing the app is cheap, which keeps a cold start short, and has no side effects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
# Packages that are imported on first use, because each costs tens of milliseconds.
LAZY = {"aiohttp", "cryptography", "httpcore", "httpx", "jwt", "msal", "redis", "requests", "ssl"}


def run(code: str) -> str:
    """Return what a new Python process prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=100).stdout  # noqa: S603, this module's code


def test_the_app_imports_its_heavy_requirements_on_first_use() -> None:
    imported = set(
        run("""
import sys
import azure.durable_functions, azure.functions
before = set(sys.modules)
import function_app
print(*(name for name in set(sys.modules) - before if not name.startswith(("function_app", "shared"))))
""").split()
    )
    assert "msgspec" in imported
    assert {name.partition(".")[0] for name in imported} & LAZY == set()


def test_importing_the_app_has_no_side_effects() -> None:
    run("""
import asyncio, os, socket, threading
def refuse(*_, **__):
    raise AssertionError("this happens at import")
import azure.durable_functions, azure.functions
socket.socket.connect = asyncio.new_event_loop = threading.Thread.start = refuse
os.environ.clear()
import function_app
""")
