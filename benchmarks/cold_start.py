"""What the app adds to a cold start: time and memory of its import, over those of the two Azure libraries alone."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass

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
    """Medians, and the least and the most of the time: ms of the clock, ms of a processor, MiB."""

    wall: float
    fastest: float
    slowest: float
    cpu: float
    memory: float


def measure(*, quick: bool) -> tuple[dict[str, Import], list[tuple[str, float]]]:
    """Give each import's figures, and the app's modules that take longest in ms, each with all that it imports."""
    codes = {
        "azure.functions, azure.durable_functions": LIBRARIES,
        "with function_app": APP,
        "with the first client": CLIENT,
    }
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in codes}
    for code in codes.values():
        _run("-c", code)  # the bytecode is compiled and written by the first run
    for _ in range(3 if quick else 15):
        for name, code in codes.items():
            rounds[name].append(tuple(json.loads(_run("-c", _PROBE.format(code=code)).stdout)))
    return {name: _summary(samples) for name, samples in rounds.items()}, _longest_imports()


def _summary(samples: list[tuple[float, float, float]]) -> Import:
    walls, cpus, memories = zip(*samples, strict=True)
    return Import(
        statistics.median(walls), min(walls), max(walls), statistics.median(cpus), statistics.median(memories)
    )


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
