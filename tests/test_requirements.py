"""requirements.txt has what the app imports, pinned, and nothing else; what it needs itself is locked for a package."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from deployment.requirements import EXTRAS, HASH, package_requirements, requirement_lines
from tests.make_recipes import recipe

PROJECT = Path(__file__).parent.parent
LOCKS = PROJECT / "deployment" / "locks"
VERSIONS: list[str] = YAML(typ="safe").load(PROJECT / ".github" / "workflows" / "ci.yml")["jobs"]["python"]["strategy"][
    "matrix"
]["python"]
# Two distributions share the namespace "azure", and several "opentelemetry"; the longest prefix counts.
SHARED_NAMESPACES = {
    "azure.functions": "azure-functions",
    "azure.durable_functions": "azure-functions-durable",
    "opentelemetry": "opentelemetry-api",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
}


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


def extra_pins() -> dict[str, str]:
    """Give the pins of all extras: who wants one may as well put it into requirements.txt."""
    return {name: version for extra in EXTRAS for name, version in pins(PROJECT / f"requirements-{extra}.txt").items()}


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
    found: set[str] = set()
    for module in modules:
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in {"shared", "function_app"}:
            continue
        prefixes = [each for each in SHARED_NAMESPACES if module == each or module.startswith(f"{each}.")]
        found |= {SHARED_NAMESPACES[max(prefixes, key=len)]} if prefixes else set(distributions[top])
    return {canonicalize_name(name) for name in found}


def needs(name: str, extras: frozenset[str] = frozenset()) -> list[Requirement]:
    """Give what an installed package needs here."""
    needed = map(Requirement, importlib.metadata.requires(name) or ())
    environments: list[dict[str, str]] = [{"extra": extra} for extra in extras or {""}]
    return [each for each in needed if each.marker is None or any(map(each.marker.evaluate, environments))]


def test_every_requirement_is_pinned_to_what_is_tested() -> None:
    pinned = requirements() | extra_pins()
    assert pinned == {name: importlib.metadata.version(name) for name in pinned}


def test_the_app_requires_what_it_imports_and_nothing_else() -> None:
    assert set(requirements()) - set(extra_pins()) == imported_packages() - set(extra_pins())


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
        assert set(requirements(python) | extra_pins()) <= set(pins(path, python))


@pytest.mark.parametrize(
    "line", ["msgspec", "msgspec>=0.22", "msgspec==0.*", 'a==1; python_version > "3"\na==2; python_version > "3"']
)
def test_the_reader_of_pins_takes_exact_versions_once(tmp_path: Path, line: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(line)
    with pytest.raises((AssertionError, ValueError)):
        pins(path)
