"""The package's requirements.txt: all that is installed, with version and hashes, so that Azure chooses nothing.

`requirements.txt` and the extras (`requirements-NAME.txt`) name what the app and the worker import; `make pin` finds
out what these need themselves, and writes it all to `deployment/locks/`. Where one requirement has a hash, pip wants
one of each, and refuses a file that has another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deployment.errors import RequirementsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

HEADER = "# Made by `make package`: all that is installed, each pinned to its version and files.\n"
# How a hash follows its requirement in one line, and how in a line of its own.
HASH = " --hash="
WRAPPED_HASH = " \\\n    --hash="
# What a package may have beside requirements.txt: the worker's telemetry in Application Insights or by OTLP, and Redis.
EXTRAS = ("azure-monitor", "otlp", "token-store")


def chosen_extras(environ: Mapping[str, str]) -> set[str]:
    """Return the extras that the parameters of the deployment ask for: azd's, with the defaults of infra/.

    Raises:
        RequirementsError: WORKER_TELEMETRY is neither true nor false.
    """
    extras: set[str] = set()
    telemetry = environ.get("WORKER_TELEMETRY") or "true"
    if telemetry.strip().lower() not in {"true", "false"}:
        raise RequirementsError(f"WORKER_TELEMETRY must be true or false, not {telemetry!r}")
    if telemetry.strip().lower() == "true":
        extras.add("azure-monitor")
    if environ.get("TOKEN_STORE_URL"):
        extras.add("token-store")
    return extras


def package_requirements(project: Path, extras: Iterable[str]) -> bytes:
    """Return the content of requirements.txt for a package with these extras.

    Raises:
        RequirementsError: a lock is missing or lacks a hash, or `make pin` has not been run since a requirement was
            changed.
    """
    files = {"app": "requirements.txt"} | {name: f"requirements-{name}.txt" for name in extras}
    hashes: dict[str, set[str]] = {}
    for name, file in files.items():
        lock = project / "deployment" / "locks" / f"{name}.txt"
        if not lock.is_file():
            raise RequirementsError(f"deployment/locks/{lock.name} is missing: `make pin` writes it")
        locked = _lines_of(lock)
        if unhashed := "; ".join(line for line in locked if HASH not in line):
            raise RequirementsError(f"deployment/locks/{lock.name} has no hash of {unhashed}: run `make pin`")
        pins = {pin(line) for line in locked}
        stale = [line for line in _lines_of(project / file) if pin(line) not in pins]
        if stale:
            raise RequirementsError(f"{file} has what `make pin` has not seen: {'; '.join(stale)}")
        for requirement, *allowed in (line.split(HASH) for line in locked):
            hashes.setdefault(requirement, set()).update(allowed)
    lines = (WRAPPED_HASH.join([requirement, *sorted(hashes[requirement])]) for requirement in sorted(hashes))
    return (HEADER + "".join(f"{line}\n" for line in lines)).encode()


def requirement_lines(text: str) -> list[str]:
    """Return the lines of a requirements file without comments, each requirement with its hashes as one line."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    joined = "\n".join(lines).replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


def pin(line: str) -> str:
    """Return name and version of a requirement, the name as PEP 503 has it: no hashes, no environments it is for."""
    name, _, version = line.partition(HASH)[0].partition(";")[0].strip().partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def _lines_of(path: Path) -> list[str]:
    return requirement_lines(path.read_text(encoding="utf-8"))
