"""The requirements.txt of a package has everything that is installed, and the extras that the deployment asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deployment.__main__ import main
from deployment.errors import RequirementsError
from deployment.requirements import HEADER, chosen_extras, package_requirements, requirement_lines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with requirements of its own, and two extras."""
    locks = tmp_path / "deployment" / "locks"
    locks.mkdir(parents=True)
    for name, requirements, lock in (
        (
            "",
            "# Why\nPy_JWT==2\nold==1; python_version < '3.13'\n",
            "cffi==7 ; os_name == 'nt' \\\n    --hash=c\nold==1 ; x \\\n    --hash=o\npy-jwt==2 --hash=j2 --hash=j1\n",
        ),
        ("otlp", "sdk==3  # why\n", "api==3 --hash=a\npy-jwt==2 --hash=j3\nsdk==3 --hash=s\n"),
        ("token-store", "redis==8\n", "py-jwt==2 --hash=j1\nredis==8 --hash=r\n"),
    ):
        (tmp_path / (f"requirements-{name}.txt" if name else "requirements.txt")).write_text(requirements)
        (locks / f"{name or 'app'}.txt").write_text(f"# made by uv\n{lock}")
    return tmp_path


def _complete(project: Path) -> None:
    """Add what else an app has."""
    (project / ".funcignore").write_text("/deployment\n/dist\n/requirements-*.txt\n")
    (project / "host.json").write_text("{}")
    (project / "function_app.py").touch()
    (project / "shared").mkdir()
    (project / "shared" / "__init__.py").touch()


def packaged(project: Path, *extras: str) -> list[str]:
    content = package_requirements(project, extras).decode()
    assert content.startswith(HEADER)
    return requirement_lines(content)


def test_the_package_installs_the_requirements_and_what_they_need(project: Path) -> None:
    assert packaged(project) == [
        "cffi==7 ; os_name == 'nt' --hash=c",
        "old==1 ; x --hash=o",
        "py-jwt==2 --hash=j1 --hash=j2",
    ]


def test_an_extra_adds_what_it_needs_once(project: Path) -> None:
    both = packaged(project, "token-store", "otlp")
    assert [line.split(" ")[0] for line in both] == ["api==3", "cffi==7", "old==1", "py-jwt==2", "redis==8", "sdk==3"]
    assert both[3] == "py-jwt==2 --hash=j1 --hash=j2 --hash=j3"


def test_each_hash_has_a_line_of_its_own(project: Path) -> None:
    lines = package_requirements(project, ()).decode().splitlines()
    assert lines[-3:] == ["py-jwt==2 \\", "    --hash=j1 \\", "    --hash=j2"]


def test_a_requirement_without_a_hash_is_named(project: Path) -> None:
    # pip refuses the whole file where only some requirements have one.
    with (project / "deployment" / "locks" / "otlp.txt").open("a") as file:
        file.write("new==1\n")
    with pytest.raises(RequirementsError, match=r"^deployment/locks/otlp\.txt has no hash of new==1: run `make pin`$"):
        package_requirements(project, ["otlp"])


@pytest.mark.parametrize("line", ["new==1", "py-jwt==3", "py-jwt"])
def test_a_requirement_that_was_not_locked_is_named(project: Path, line: str) -> None:
    with (project / "requirements.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RequirementsError, match=f"requirements.txt has what `make pin` has not seen: {line}$"):
        package_requirements(project, ())


def test_an_extra_that_was_not_locked_is_named(project: Path) -> None:
    (project / "requirements-otlp.txt").write_text("sdk==4\n")
    with pytest.raises(RequirementsError, match=r"requirements-otlp\.txt has what `make pin` has not seen: sdk==4"):
        package_requirements(project, ["otlp"])


def test_a_missing_lock_is_named(project: Path) -> None:
    with pytest.raises(
        RequirementsError, match=r"deployment/locks/azure-monitor\.txt is missing: `make pin` writes it"
    ):
        package_requirements(project, ["azure-monitor"])


@pytest.mark.parametrize(
    ("environ", "extras"),
    [
        ({}, {"azure-monitor"}),
        ({"WORKER_TELEMETRY": ""}, {"azure-monitor"}),
        ({"WORKER_TELEMETRY": "true"}, {"azure-monitor"}),
        ({"WORKER_TELEMETRY": "false"}, set()),
        ({"WORKER_TELEMETRY": "False", "TOKEN_STORE_URL": "rediss://cache.example"}, {"token-store"}),
        ({"TOKEN_STORE_URL": "key-vault"}, {"azure-monitor", "token-store"}),
        ({"TOKEN_STORE_URL": "", "WORKER_TELEMETRY": "false"}, set()),
    ],
)
def test_the_parameters_of_the_deployment_choose_the_extras(environ: dict[str, str], extras: set[str]) -> None:
    assert chosen_extras(environ) == extras


@pytest.mark.parametrize("value", ["0", "no", "off", "1", "flase", " "])
def test_telemetry_is_switched_by_true_and_false_alone(
    project: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    # azd hands the same value to the templates, which take a boolean.
    assert main(["package"], {"WORKER_TELEMETRY": value}, project) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"deployment: WORKER_TELEMETRY must be true or false, not {value!r}"


def test_the_command_line_adds_extras(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _complete(project)
    arguments = ["package", "--extra", "otlp", "--extra", "otlp"]
    assert main(arguments, {"WORKER_TELEMETRY": "false", "TOKEN_STORE_URL": "key-vault"}, project) == 0
    assert "extras otlp, token-store," in capsys.readouterr().out
    assert "sdk==3 " in (project / "dist" / "app" / "requirements.txt").read_text()


def test_trouble_with_requirements_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _complete(project)
    assert main(["package"], {}, project) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "deployment: deployment/locks/azure-monitor.txt is missing: `make pin` writes it"
