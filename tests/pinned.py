"""What the requirements files pin."""

from __future__ import annotations

from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deployment.requirements import EXTRAS, HASH, requirement_lines

PROJECT = Path(__file__).parent.parent


def pins(path: Path, python: str | None = None) -> dict[str, str]:
    """Give the version of each package that a requirements file pins, for this Python or for a version of it."""
    environment: dict[str, str] = {**default_environment()}  # type: ignore[dict-item]  # a TypedDict of strings
    if python is not None:
        environment |= {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_version": python,
        }
    lines = [line.partition(HASH)[0] for line in requirement_lines(path.read_text())]
    found: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        [specifier] = requirement.specifier
        assert (specifier.operator, "*" in specifier.version) == ("==", False), requirement
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in found, requirement
            found[name] = specifier.version
    return found


def requirements(python: str | None = None) -> dict[str, str]:
    return pins(PROJECT / "requirements.txt", python)


def extra_pins(python: str | None = None) -> dict[str, str]:
    """Give the pins of all extras: who wants one may as well put it into requirements.txt."""
    files = [PROJECT / f"requirements-{extra}.txt" for extra in EXTRAS]
    return {name: version for file in files for name, version in pins(file, python).items()}
