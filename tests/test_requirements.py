"""requirements.txt has what the app imports, pinned, and nothing else."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parent.parent
# Not the app but the worker imports it, where it is to send telemetry itself: docs/configuration.md says when.
FOR_THE_WORKER = {"azure-monitor-opentelemetry"}
# Installed by those who set TOKEN_STORE_URL; without it that setting is refused, and nothing else is missed.
OPTIONAL = {"redis"}


def requirements() -> dict[str, str]:
    """Give the version of each package that requirements.txt pins for this Python."""
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in parsed:
        assert [(each.operator, each.version.count("*")) for each in requirement.specifier] == [("==", 0)]
    return {
        requirement.name.lower(): str(requirement.specifier).removeprefix("==")
        for requirement in parsed
        if requirement.marker is None or requirement.marker.evaluate()
    }


def imported_packages() -> set[str]:
    """Give the distributions whose modules the app imports, at the top of a file or in a function."""
    modules: set[str] = set()
    for path in [PROJECT / "function_app.py", *(PROJECT / "shared").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules |= {node.module}
    distributions = importlib.metadata.packages_distributions()
    # Two distributions share the namespace "azure", and two "opentelemetry".
    special = {
        "azure.functions": "azure-functions",
        "azure.durable_functions": "azure-functions-durable",
        "opentelemetry": "opentelemetry-api",
    }
    found: set[str] = set()
    for module in modules:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in {"shared", "function_app"}:
            continue
        known = [name for prefix, name in special.items() if module == prefix or module.startswith(f"{prefix}.")]
        found |= set(known or distributions[top])
    return {name.lower() for name in found}


def test_every_requirement_is_pinned_to_what_is_tested() -> None:
    installed = {name: importlib.metadata.version(name) for name in requirements()}
    assert requirements() == installed


def test_the_app_requires_what_it_imports_and_nothing_else() -> None:
    assert set(requirements()) - FOR_THE_WORKER == imported_packages() - OPTIONAL
