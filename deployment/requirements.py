"""The package's requirements.txt: every package that is to be installed, with its version, so that Azure chooses none.

`requirements.txt` and the extras (`requirements-NAME.txt`) name what the app and the worker import; `make pin` finds
out what these need themselves, and writes it all to `deployment/locks/`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deployment.errors import RequirementsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

HEADER = "# Made by `make package`: all that is installed, each pinned.\n"
# What a package may have beside requirements.txt: the worker's telemetry in Application Insights or by OTLP, and Redis.
EXTRAS = ("azure-monitor", "otlp", "token-store")


def chosen_extras(environ: Mapping[str, str]) -> set[str]:
    """Give the extras that the parameters of the deployment ask for: azd's, with the defaults of infra/."""
    extras: set[str] = set()
    if environ.get("WORKER_TELEMETRY", "").strip().lower() != "false":
        extras.add("azure-monitor")
    if environ.get("TOKEN_STORE_URL"):
        extras.add("token-store")
    return extras


def package_requirements(project: Path, extras: Iterable[str]) -> bytes:
    """Give the content of requirements.txt for a package with these extras.

    Raises:
        RequirementsError: a lock is missing, or `make pin` has not been run since a requirement was changed.
    """
    files = {"app": "requirements.txt"} | {name: f"requirements-{name}.txt" for name in extras}
    lines: set[str] = set()
    for name, file in files.items():
        lock = project / "deployment" / "locks" / f"{name}.txt"
        if not lock.is_file():
            raise RequirementsError(f"deployment/locks/{lock.name} is missing: `make pin` writes it")
        locked = _lines(lock)
        pins = {_pin(line) for line in locked}
        stale = [line for line in _lines(project / file) if _pin(line) not in pins]
        if stale:
            raise RequirementsError(f"{file} has what `make pin` has not seen: {'; '.join(stale)}")
        lines.update(locked)
    return (HEADER + "".join(f"{line}\n" for line in sorted(lines))).encode()


def _lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _pin(line: str) -> str:
    """Give name and version of a requirement, the name as PEP 503 has it, without the environments it is for."""
    name, _, version = line.partition(";")[0].strip().partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"
