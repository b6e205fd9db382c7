"""Azure installs the versions that were tested."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

LOCKS = sorted((Path(__file__).parent.parent / "deployment" / "locks").glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_package_installs_the_versions_that_were_tested(lock: Path) -> None:
    lines = [line.partition("\\")[0] for line in lock.read_text().splitlines() if line[:1].isalnum()]
    pins = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate()]
    assert {each.name: str(each.specifier) for each in pins} == {
        each.name: f"=={importlib.metadata.version(each.name)}" for each in pins
    }
