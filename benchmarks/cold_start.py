"""What the app adds to a cold start: time and memory of its import, over those of the two Azure libraries alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.load import median_ratio

if TYPE_CHECKING:
    from collections.abc import Callable

LIBRARIES = "import azure.functions, azure.durable_functions"
APP = "import azure.functions, azure.durable_functions, function_app"
CLIENT = (
    APP
    + """
from shared.link import build_link
from shared.partner import RESOURCES
from shared.settings.app_settings import PartnerSettings
partner = RESOURCES[0].partner
names = ("URL", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET")
environ = {f"{partner.name}_{name}": "https://partner.invalid" for name in names}
build_link(partner, PartnerSettings.from_environ(environ, partner.name), None)"""
)
_PROBE = """
import json, time
from pathlib import Path
began, cpu = time.perf_counter(), time.process_time()
{code}
took, cpu = time.perf_counter() - began, time.process_time() - cpu
status = Path("/proc/self/status").read_text()
memory = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
print(json.dumps([took * 1e3, cpu * 1e3, memory / 1024]))
"""


@dataclass(frozen=True)
class Import:
    """Round by round: ms of the clock, ms of a processor, MiB of resident memory."""

    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    memories: list[float] = field(default_factory=list)

    def times(self, other: Import) -> float:
        """Return the median of the rounds' ratios to the other's time by the clock."""
        return median_ratio(self.walls, other.walls)


CODES = {
    "azure.functions, azure.durable_functions": LIBRARIES,
    "with function_app": APP,
    "with the first client": CLIENT,
}


def measure(*, quick: bool) -> dict[str, Import]:
    """Return each import's figures."""
    return alternate(probe, rounds=5 if quick else 31)


def alternate(one: Callable[[str], tuple[float, float, float]], *, rounds: int) -> dict[str, Import]:
    """Measure every import in each round, there and back, after one of each that does not count.

    The first run compiles the bytecode and writes it.
    """
    imports = {name: Import() for name in CODES}
    for code in CODES.values():
        one(code)
    for number in range(rounds):
        for name in reversed(CODES) if number % 2 else CODES:
            wall, cpu, memory = one(CODES[name])
            imports[name].walls.append(wall)
            imports[name].cpus.append(cpu)
            imports[name].memories.append(memory)
    return imports


def probe(code: str) -> tuple[float, float, float]:
    """Run this code in a new process; return ms of the clock, ms of a processor, MiB."""
    wall, cpu, memory = json.loads(_run("-c", _PROBE.format(code=code)).stdout)
    return wall, cpu, memory


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(  # noqa: S603, our own code
        [sys.executable, *arguments], capture_output=True, text=True, check=True, env=environ
    )
