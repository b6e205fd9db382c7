"""Importing the app is cheap, which keeps a cold start short, and has no side effects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
# Packages that are imported on first use, because each costs tens of milliseconds.
LAZY = {"aiohttp", "cryptography", "httpcore", "httpx", "jwt", "msal", "redis", "requests", "ssl"}


# What happens at import is refused.
PROGRAM = """
import asyncio, os, socket, sys, threading
import azure.durable_functions, azure.functions
def refuse(*_, **__):
    raise AssertionError("this happens at import")
socket.socket.connect = asyncio.new_event_loop = threading.Thread.start = refuse
os.environ.clear()
before = set(sys.modules)
import function_app
print(*(name for name in set(sys.modules) - before if not name.startswith(("function_app", "shared"))))
"""


def test_importing_the_app_has_no_side_effects_and_leaves_its_heavy_requirements_for_first_use() -> None:
    command = [sys.executable, "-c", PROGRAM]
    told = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=100).stdout  # noqa: S603, this module's code

    assert "msgspec" in told.split()
    assert {name.partition(".")[0] for name in told.split()} & LAZY == set()
