"""`python -m deployment package`: what it says, what it refuses, and what it may overwrite."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from deployment.__main__ import main
from deployment.package import deployed_paths
from tests.packaged_project import small_project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project")


def test_the_command_lists_what_it_packs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["package", "--backend", "dts"], {"WORKER_TELEMETRY": "false"}, project) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [str(path) for path in deployed_paths(project)]
    assert lines[-1].startswith(f"{project / 'dist' / 'app.zip'}: 5 files, durable backend dts, extras none, sha256 ")


def test_the_environment_names_the_backend_where_the_command_line_does_not(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["package"], {"DURABLE_BACKEND": "dts"}, project) == 0
    assert "durable backend dts" in capsys.readouterr().out
    assert main(["package"], {"DURABLE_BACKEND": ""}, project) == 0
    assert "durable backend storage" in capsys.readouterr().out
    assert main(["package", "--backend", "storage"], {"DURABLE_BACKEND": "dts"}, project) == 0
    assert "durable backend storage" in capsys.readouterr().out


def test_a_backend_of_the_environment_that_there_is_not_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["package"], {"DURABLE_BACKEND": "bogus"}, project) == 1
    assert capsys.readouterr().err == "deployment: DURABLE_BACKEND must be storage or dts, not 'bogus'\n"


def test_trouble_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "host.json").unlink()
    assert main(["package"], {}, project) == 1
    assert capsys.readouterr().err.splitlines() == [
        "deployment: host.json is missing: it is host.json for the durable backend 'storage'"
    ]
    assert main(["try"], {}, project) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("app.zip is missing: `make package` writes it")


def test_a_package_replaces_an_earlier_one_and_what_a_tool_has_put_into_it(project: Path) -> None:
    folder = project / "dist" / "app"
    assert main(["package"], {}, project) == 0
    (folder / ".venv").mkdir()
    (folder / ".venv" / "pyvenv.cfg").touch()
    (project / "shared" / "model.py").touch()
    assert main(["package"], {}, project) == 0
    assert (folder / "shared" / "model.py").exists()
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize("archive", [None, "no zip", "an empty zip", "the zip of something else"])
def test_a_folder_that_no_package_was_written_to_is_not_emptied(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], archive: str | None
) -> None:
    mine = tmp_path / "app" / "function_app.py"
    mine.parent.mkdir()
    mine.write_text("mine")
    if archive == "no zip":
        (tmp_path / "app.zip").write_text("mine")
    elif archive:
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as other:
            for name in ["function_app.py", "other.py"] if "else" in archive else []:
                other.writestr(name, "")
    before = (tmp_path / "app.zip").read_bytes() if archive else None

    assert main(["package", "--output", str(tmp_path)], {}, project) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"deployment: {tmp_path / 'app'} would be emptied, and is not what was unpacked from ")
    assert mine.read_text() == "mine"
    assert ((tmp_path / "app.zip").read_bytes() if archive else None) == before


def test_neither_a_file_nor_a_link_is_taken_for_a_folder_to_empty(project: Path, tmp_path: Path) -> None:
    (tmp_path / "app").write_text("mine")
    assert main(["package", "--output", str(tmp_path)], {}, project) == 1
    (tmp_path / "app").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "app").symlink_to(tmp_path / "elsewhere")
    assert main(["package", "--output", str(tmp_path)], {}, project) == 1
    assert (tmp_path / "app").is_symlink()


def test_an_empty_folder_is_written_to(project: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "app").mkdir(parents=True)
    assert main(["package", "--output", str(tmp_path / "out")], {}, project) == 0
    assert (tmp_path / "out" / "app" / "host.json").exists()
