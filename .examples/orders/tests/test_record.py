"""The command that records histories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.histories.record import main
from tests.histories.recording import FOLDER

if TYPE_CHECKING:
    import pytest


def test_a_version_that_has_been_recorded_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    [recorded, *_] = sorted(path.name for path in FOLDER.glob("v*"))
    before = {path: path.read_bytes() for path in FOLDER.rglob("*.json")}
    assert main([recorded]) == 1
    assert capsys.readouterr().err == (
        f"{recorded} has been recorded: what a version has recorded is never written again\n"
    )
    assert {path: path.read_bytes() for path in FOLDER.rglob("*.json")} == before
