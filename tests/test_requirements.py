"""What the app requires is pinned to what is tested; what that needs itself is locked for a package."""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from deployment.requirements import EXTRAS, HASH, package_requirements, requirement_lines
from tests.make_recipes import recipe
from tests.pinned import PROJECT, extra_pins, pins, requirements

if TYPE_CHECKING:
    from pathlib import Path

LOCKS = PROJECT / "deployment" / "locks"
VERSIONS: list[str] = YAML(typ="safe").load(PROJECT / ".github" / "workflows" / "ci.yml")["jobs"]["python"]["strategy"][
    "matrix"
]["python"]


def needs(name: str, extras: frozenset[str] = frozenset()) -> list[Requirement]:
    """Give what an installed package needs here."""
    needed = map(Requirement, importlib.metadata.requires(name) or ())
    environments: list[dict[str, str]] = [{"extra": extra} for extra in extras or {""}]
    return [each for each in needed if each.marker is None or any(map(each.marker.evaluate, environments))]


def test_every_requirement_is_pinned_to_what_is_tested() -> None:
    pinned = requirements() | extra_pins()
    assert pinned == {name: importlib.metadata.version(name) for name in pinned}


def test_the_requirements_and_all_extras_go_together() -> None:
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in requirements() | extra_pins()]
    checked: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = here = waiting.pop()
        if here in checked:
            continue
        checked.add(here)
        for need in needs(name, extras):
            installed = importlib.metadata.version(need.name)
            assert need.specifier.contains(installed, prereleases=True), f"{name} needs {need}, not {installed}"
            waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    assert len(checked) > len(requirements() | extra_pins())


@pytest.mark.parametrize("python", VERSIONS)
def test_a_requirement_has_the_version_that_was_resolved_for_each_python(python: str) -> None:
    locked = pins(LOCKS / "app.txt", python)
    assert requirements(python) == {name: locked.get(name) for name in requirements(python)}
    assert set(requirements(python)) == set(requirements())


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_locked_with_all_that_it_needs(extra: str) -> None:
    locked = pins(LOCKS / f"{extra}.txt")
    wanted = requirements() | pins(PROJECT / f"requirements-{extra}.txt")
    assert wanted == {name: locked.get(name) for name in wanted}
    missing = {
        f"{name}: {need}" for name in locked for need in needs(name) if canonicalize_name(need.name) not in locked
    }
    assert missing == set()


def test_what_is_locked_is_what_is_tested() -> None:
    for path in sorted(LOCKS.glob("*.txt")):
        locked = pins(path)
        assert locked == {name: importlib.metadata.version(name) for name in locked}, path.name


def test_every_file_that_azure_installs_is_one_that_was_locked() -> None:
    for path in sorted(LOCKS.glob("*.txt")):
        for line in requirement_lines(path.read_text()):
            requirement, *hashes = line.split(HASH)
            assert hashes, f"{path.name}: {requirement}"
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), f"{path.name}: {requirement}"


def test_no_release_is_pinned_before_it_is_as_old_as_dependabot_wants_it() -> None:
    dependabot = YAML(typ="safe").load(PROJECT / ".github" / "dependabot.yml")["updates"]
    [days] = {update["cooldown"]["default-days"] for update in dependabot if update["package-ecosystem"] == "pip"}
    compiling = [line for line in recipe("pin") if "uv pip compile" in line]
    assert len(compiling) == 3
    assert [line for line in compiling if f'--exclude-newer "{days} days"' not in line] == []
    assert [("--generate-hashes" in line) for line in compiling] == [False, False, True]


def test_a_release_that_cannot_wait_can_be_pinned_at_once_and_all_be_upgraded() -> None:
    compiling = [line for line in recipe("pin", "COOLDOWN=0 days", "ARGS=--upgrade") if "uv pip compile" in line]
    assert [line for line in compiling if '--exclude-newer "0 days"' not in line or "--upgrade" not in line] == []


def test_there_is_a_lock_for_the_app_and_for_each_extra() -> None:
    names = {"app", *EXTRAS}
    assert {path.stem for path in LOCKS.glob("*.txt")} == names
    assert {path.stem for path in PROJECT.glob("requirements-*.txt")} == {
        "requirements-dev",
        *(f"requirements-{extra}" for extra in EXTRAS),
    }
    listed = re.search(r"^EXTRAS := (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    assert listed[1].split() == list(EXTRAS)


def test_the_packages_of_all_extras_are_locked_to_one_version_each(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(package_requirements(PROJECT, EXTRAS))
    for python in VERSIONS:
        assert set(requirements(python) | extra_pins(python)) <= set(pins(path, python))


def test_the_package_that_sends_by_otlp_brings_the_runtime_that_does_not_fail_with_it(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    for extras, runtime in [(("otlp",), "1.3.0"), (("azure-monitor", "token-store"), None)]:
        path.write_bytes(package_requirements(PROJECT, extras))
        assert pins(path, "3.13").get("azure-functions-runtime") == runtime


@pytest.mark.parametrize(
    "line", ["msgspec", "msgspec>=0.22", "msgspec==0.*", 'a==1; python_version > "3"\na==2; python_version > "3"']
)
def test_the_reader_of_pins_takes_exact_versions_once(tmp_path: Path, line: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(line)
    with pytest.raises((AssertionError, ValueError)):
        pins(path)
