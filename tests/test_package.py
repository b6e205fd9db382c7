"""What is deployed: the files that .funcignore leaves, and the same bytes each time."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from deployment.errors import PackageError
from deployment.package import APP, Package, deployed_paths
from tests.packaged_project import PROJECT, small_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project")


def names(paths: list[PurePosixPath]) -> set[str]:
    return {str(path) for path in paths}


def test_the_package_of_this_project_is_the_app_and_nothing_else() -> None:
    paths = deployed_paths(PROJECT)
    assert {path.parts[0] for path in paths} == APP
    packaged = {path for path in paths if path.parts[0] == "shared"}
    modules = {PurePosixPath(path.relative_to(PROJECT)) for path in (PROJECT / "shared").rglob("*.py")}
    assert packaged >= modules
    assert {path.suffix for path in packaged} <= {".py", ".html", ".css", ".js", ".svg"}
    assert PurePosixPath("shared/errors.py") in packaged


def test_tests_tools_and_secrets_are_left_out(project: Path) -> None:
    assert names(deployed_paths(project)) == {
        "function_app.py",
        "host.json",
        "requirements.txt",
        "shared/__init__.py",
        "shared/tests/model.py",
    }


@pytest.mark.parametrize("name", [".git/config", ".vscode/tasks.json", "local.settings.json", "shared/.gitignore"])
def test_what_the_core_tools_never_deploy_is_left_out_whatever_is_ignored(project: Path, name: str) -> None:
    (project / ".funcignore").write_text("/nothing\n")
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).touch()
    assert name not in names(deployed_paths(project))


def test_the_zip_holds_the_files_as_they_are(project: Path, tmp_path: Path) -> None:
    Package.of_project(project).write_zip(tmp_path / "out" / "app.zip")
    with zipfile.ZipFile(tmp_path / "out" / "app.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(names(deployed_paths(project)))
        assert archive.read("function_app.py") == b"app = 1\n"
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100666}
        # 3 is Unix. Neither the machine nor the time of packaging shows.
        assert {(entry.create_system, entry.date_time) for entry in archive.infolist()} == {(3, (1980, 1, 1, 0, 0, 0))}


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(project: Path, tmp_path: Path) -> None:
    Package.of_project(project).write_zip(tmp_path / "one.zip")
    for path in project.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o755)
    Package.of_project(project).write_zip(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_another_content_gives_another_zip(project: Path, tmp_path: Path) -> None:
    Package.of_project(project).write_zip(tmp_path / "one.zip")
    (project / "function_app.py").write_text("app = 2\n")
    Package.of_project(project).write_zip(tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() != (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize("name", ["credentials.txt", "dump.json", "notes/todo.md", "other.py"])
def test_what_is_not_known_to_be_the_app_is_refused(project: Path, name: str) -> None:
    path = project / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    (project / "zebra.bin").touch()
    with pytest.raises(PackageError, match=rf"^{re.escape(name.partition('/')[0])}, zebra\.bin: not part of the app"):
        Package.of_project(project)


@pytest.mark.parametrize("name", ["credentials.json", "auth/credentials", "notes.md", "py.typed.bak"])
def test_what_is_no_module_and_no_page_is_refused_below_shared(project: Path, name: str) -> None:
    path = project / "shared" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("hunter2")
    with pytest.raises(PackageError, match=rf"^shared/{re.escape(name)}: not part of the app"):
        Package.of_project(project)


@pytest.mark.parametrize("name", ["id_mapping.py", "model/secret.py", "py.typed", "http/page.html"])
def test_a_module_or_a_page_that_a_user_adds_is_packaged(project: Path, name: str) -> None:
    path = project / "shared" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert PurePosixPath("shared") / name in Package.of_project(project).files


@pytest.mark.parametrize("pattern", ["/shared/auth/entra.py", "**/ent*", "/shared/auth"])
def test_a_module_that_is_left_out_is_named(project: Path, pattern: str) -> None:
    (project / "shared" / "auth" / "entra.py").touch()
    with (project / ".funcignore").open("a") as file:
        file.write(f"{pattern}\n")
    with pytest.raises(PackageError, match=r"^shared/auth/entra\.py: \.funcignore leaves it out of the package"):
        Package.of_project(project)


@pytest.mark.parametrize("name", ["function_app.py", "requirements.txt", "shared"])
def test_an_app_that_is_not_whole_is_refused(project: Path, name: str) -> None:
    with (project / ".funcignore").open("a") as file:
        file.write(f"/{name}\n")
    with pytest.raises(PackageError, match=rf"^{re.escape(name)}: not there, or left out by \.funcignore"):
        Package.of_project(project)
    (project / ".funcignore").write_text((PROJECT / ".funcignore").read_text())
    (project / name).rename(project.parent / name)
    with pytest.raises(PackageError, match=rf"^{re.escape(name)}: not there"):
        Package.of_project(project)


def test_what_an_editor_hides_below_shared_is_left_out(project: Path) -> None:
    copy = project / "shared" / ".ipynb_checkpoints" / "model.py"
    copy.parent.mkdir()
    copy.touch()
    assert names(list(Package.of_project(project).files)) == names(deployed_paths(project))


def test_the_backend_chooses_the_host_json(project: Path) -> None:
    storage, scheduler = Package.of_project(project, "storage"), Package.of_project(project, "dts")
    host_json = PurePosixPath("host.json")
    assert storage.files[host_json] == (project / "host.json").read_bytes()
    assert scheduler.files[host_json] == (project / "host.dts.json").read_bytes()
    assert set(storage.files) == set(scheduler.files)


def test_a_missing_host_json_is_named(project: Path) -> None:
    (project / "host.dts.json").unlink()
    with pytest.raises(PackageError, match=r"host\.dts\.json is missing: it is host\.json for .* 'dts'"):
        Package.of_project(project, "dts")


def test_a_missing_funcignore_is_an_error_and_not_everything(project: Path) -> None:
    (project / ".funcignore").unlink()
    with pytest.raises(PackageError, match=r"\.funcignore is missing"):
        Package.of_project(project)


@pytest.mark.parametrize(("name", "target"), [("link.py", "/etc/hostname"), ("link", "/etc")])
def test_a_symbolic_link_is_refused(project: Path, name: str, target: str) -> None:
    (project / "shared" / name).symlink_to(target)
    with pytest.raises(PackageError, match=rf"^shared/{re.escape(name)} is a symbolic link"):
        deployed_paths(project)


def test_the_folder_is_emptied_first(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "old").mkdir(parents=True)
    Package.of_project(project).write_folder(folder)
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == names(deployed_paths(project))
