"""What is deployed: the files that .funcignore leaves, and the same bytes each time."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from deployment.__main__ import main
from deployment.errors import PackageError
from deployment.package import APP, Package, deployed_paths

PROJECT = Path(__file__).parent.parent
SECRET_FILES = (
    "local.settings.json",
    "shared/client.pem",
    "client.pem",
    "shared/auth/key.pfx",
    ".env",
    "shared/.env",
    "new-secret",
    "shared/client-secret.txt",
    "certificate.p12",
    "id_rsa",
    "venv/pyvenv.cfg",
    "node_modules/azurite/index.js",
    "__azurite_db_blob__.json",
    "uv.lock",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with this project's .funcignore."""
    root = tmp_path / "project"
    contents = {
        ".funcignore": (PROJECT / ".funcignore").read_text(),
        "function_app.py": "app = 1\n",
        "host.json": '{"version": "2.0"}',
        "host.dts.json": '{"version": "2.0", "durable": "dts"}',
        "requirements.txt": "# Why\nmsgspec==1\n",
        "requirements-otlp.txt": "sdk==2\n",
        "deployment/locks/app.txt": "msgspec==1 --hash=m\n",
        "deployment/locks/azure-monitor.txt": "msgspec==1 --hash=m\nmonitor==3 --hash=x\n",
        "requirements-azure-monitor.txt": "monitor==3\n",
        "shared/__init__.py": "",
        "shared/__pycache__/x.cpython-313.pyc": "cache",
        "shared/tests/model.py": "the app's own, whatever the name\n",
        "tests/test_x.py": "assert True\n",
        ".venv/lib/site.py": "",
        ".git/config": "",
        "sandbox/__main__.py": "",
        "local.settings.json.example": "{}",
        **dict.fromkeys(SECRET_FILES, "a secret"),
    }
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def core_tools_paths(project: Path) -> set[str]:
    """Give what the Core Tools would deploy: their rules for .funcignore, which are not those of .gitignore.

    Each pattern becomes a regular expression that is matched at the start of the path and must end at a word boundary;
    "*" is one or more characters of a name, "**" one or more characters; order does not count, and "!" always wins.
    (GitIgnoreParser.cs and FileSystemHelpers.GetLocalFiles.)
    """
    lines = [line.strip() for line in (project / ".funcignore").read_text().splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert not [pattern for pattern in patterns if pattern.startswith("!")]

    def expression(pattern: str) -> str:
        escaped = re.sub(r"[\-\[\]/{}()+?.\\^$|]", r"\\\g<0>", pattern.removeprefix("/"))
        return escaped.replace("**", "(.+)").replace("*", "([^/]+)")

    denied = re.compile("^((" + ")|(".join(map(expression, patterns)) + r"))\b", re.ASCII)
    never = {".funcignore", ".gitignore", "local.settings.json", "project.lock.json"}
    found: set[str] = set()
    for folder, folders, files in os.walk(project):
        folders[:] = [name for name in folders if name not in {".git", ".vscode"}]
        paths = ((Path(folder) / name).relative_to(project).as_posix() for name in files if name not in never)
        found |= {path for path in paths if not denied.match(path)}
    return found


def names(paths: list[PurePosixPath]) -> set[str]:
    return {str(path) for path in paths}


def test_the_package_of_this_project_is_the_app_and_nothing_else() -> None:
    paths = deployed_paths(PROJECT)
    assert {path.parts[0] for path in paths} == APP
    assert {path.suffix for path in paths if path.parts[0] == "shared"} == {".py"}
    assert PurePosixPath("shared/errors.py") in paths


def test_tests_tools_and_secrets_are_left_out(project: Path) -> None:
    assert names(deployed_paths(project)) == {
        "function_app.py",
        "host.json",
        "requirements.txt",
        "shared/__init__.py",
        "shared/tests/model.py",
    }


def test_the_core_tools_deploy_the_same(project: Path) -> None:
    assert core_tools_paths(project) == names(deployed_paths(project))


def test_the_core_tools_deploy_the_same_of_this_project(tmp_path: Path) -> None:
    # The names of the real tree, without what other tests write while this one runs; an environment is one file.
    for folder, folders, files in os.walk(PROJECT):
        here = Path(folder).relative_to(PROJECT)
        environments = [name for name in folders if name.startswith(".")]
        folders[:] = [name for name in folders if name not in environments]
        for name in [*files, *(f"{name}/file" for name in environments)]:
            copy = tmp_path / here / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.touch()
    (tmp_path / ".funcignore").write_text((PROJECT / ".funcignore").read_text())
    assert core_tools_paths(tmp_path) == names(deployed_paths(tmp_path))


def test_the_zip_holds_the_files_as_they_are(project: Path, tmp_path: Path) -> None:
    Package.of_project(project).write_zip(tmp_path / "out" / "app.zip")
    with zipfile.ZipFile(tmp_path / "out" / "app.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(names(deployed_paths(project)))
        assert archive.read("function_app.py") == b"app = 1\n"
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100666}


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


def test_a_symbolic_link_is_refused(project: Path) -> None:
    (project / "shared" / "link.py").symlink_to("/etc/hostname")
    with pytest.raises(PackageError, match=r"shared/link\.py is a symbolic link"):
        deployed_paths(project)


def test_the_folder_is_emptied_first(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "old").mkdir(parents=True)
    Package.of_project(project).write_folder(folder)
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == names(deployed_paths(project))


def test_the_command_lists_what_it_packs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["package", "--backend", "dts"], {"WORKER_TELEMETRY": "false"}, project) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == sorted(names(deployed_paths(project)))
    assert lines[-1].startswith(f"{project / 'dist' / 'app.zip'}: 5 files, durable backend dts, extras none, sha256 ")


def test_the_environment_names_the_backend_where_the_command_line_does_not(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["package"], {"DURABLE_BACKEND": "dts"}, project) == 0
    assert "durable backend dts" in capsys.readouterr().out
    assert main(["package"], {"DURABLE_BACKEND": ""}, project) == 0
    assert "durable backend storage" in capsys.readouterr().out


def test_trouble_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "host.json").unlink()
    assert main(["package"], {}, project) == 1
    assert capsys.readouterr().err.splitlines() == [
        "deployment: host.json is missing: it is host.json for the durable backend 'storage'"
    ]
    assert main(["try"], {}, project) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("app.zip is missing: `make package` writes it")
