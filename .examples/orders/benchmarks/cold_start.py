"""What the app adds to a cold start: time and memory of its import, over those of the two Azure libraries alone."""

from __future__ import annotations

import json
import os
import statistics
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
from shared.client import build_client
from shared.settings import Settings
names = ("URL", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET")
build_client(Settings.from_environ({f"BUSINESS_API_{name}": "https://partner.invalid" for name in names}), {})"""
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
        """Give the median of the rounds' ratios to the other's time by the clock."""
        return median_ratio(self.walls, other.walls)

    def more_memory(self, other: Import) -> float:
        """Give the median of the rounds' differences from the other's memory, in MiB."""
        return statistics.median(mine - its for mine, its in zip(self.memories, other.memories, strict=True))


CODES = {
    "azure.functions, azure.durable_functions": LIBRARIES,
    "with function_app": APP,
    "with the first client": CLIENT,
}


def measure(*, quick: bool) -> tuple[dict[str, Import], list[tuple[str, float]]]:
    """Give each import's figures, and the app's modules that take longest in ms, each with all that it imports."""
    return alternate(probe, rounds=3 if quick else 31), _longest_imports()


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
    """Run this code in a new process; give ms of the clock, ms of a processor, MiB."""
    wall, cpu, memory = json.loads(_run("-c", _PROBE.format(code=code)).stdout)
    return wall, cpu, memory


def _longest_imports() -> list[tuple[str, float]]:
    lines = _run("-X", "importtime", "-c", APP).stderr.splitlines()
    imports = []
    for line in lines:
        _, _, columns = line.partition("import time:")
        parts = columns.split("|")
        if len(parts) == 3 and parts[1].strip().isdigit():  # noqa: PLR2004, self, cumulative, module
            imports.append((parts[2].strip(), int(parts[1]) / 1e3))
    ours = [(module, took) for module, took in imports if module.partition(".")[0] in {"function_app", "shared"}]
    return sorted(ours, key=lambda each: each[1], reverse=True)[:12]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(  # noqa: S603, our own code
        [sys.executable, *arguments], capture_output=True, text=True, check=True, env=environ
    )
