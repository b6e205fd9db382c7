"""The structure of the app: imports point one way, names are unique, and modules stay small."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PROJECT = Path(__file__).parent.parent
# From the bottom to the top. A module imports from its own layer and from lower ones.
LAYERS = (
    "shared.errors",
    "shared.answer",
    "shared.resource",
    "shared.rules",
    "shared.telemetry",
    "shared.auth",
    "shared.settings.reader",
    "shared.auth.client_credentials",  # a grant declares and reads its own settings
    "shared.auth.entra",  # the same
    "shared.settings",
    "shared.client",
    "shared.durable",
    "shared.http",
    "shared.partner",
    "shared.link",
    "shared.container",
    "function_app",
)
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "getproxies", "proxy_bypass"}
MOST_MODULES = 50
MOST_LINES = 350

PATHS = {
    ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [PROJECT / "function_app.py", *sorted((PROJECT / "shared").rglob("*.py"))]
}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(PATHS[name].read_text(encoding="utf-8"))


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@cache
def imports_of(name: str) -> set[str]:
    """Return the modules that a module imports anywhere, under TYPE_CHECKING and in functions too."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            # `from shared import errors` imports a module, `from shared.errors import RelayError` does not.
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & PATHS.keys()
            found |= modules or {node.module or ""}
    return found


def own_imports() -> dict[str, set[str]]:
    return {name: imports_of(name) & PATHS.keys() for name in PATHS}


def layer(name: str) -> int:
    """Return the number of a module's layer; the longest matching name counts."""
    matching = [each for each in LAYERS if is_in(name, each)]
    assert matching, f"{name} belongs to no layer"
    return LAYERS.index(max(matching, key=len))


def repeated(names: list[str]) -> str:
    return " ".join(name for name, count in Counter(names).items() if count > 1)


def test_imports_point_one_way() -> None:
    modules = {name for name in PATHS if PATHS[name].name != "__init__.py"}
    own = own_imports()
    upward = {(name, each) for name in modules for each in own[name] & modules if layer(each) > layer(name)}
    assert upward == set()


def test_there_are_no_cycles() -> None:
    # It raises CycleError, which names the cycle.
    TopologicalSorter(own_imports()).prepare()


def test_the_app_imports_only_what_is_deployed() -> None:
    packages = ("benchmarks", "deployment", "examples", "relay", "sandbox", "tests")
    imports = {(name, each) for name in PATHS for each in imports_of(name)}
    assert {(name, each) for name, each in imports if any(is_in(each, package) for package in packages)} == set()


def test_only_the_function_app_imports_azure() -> None:
    assert {name for name in PATHS if any(is_in(each, "azure") for each in imports_of(name))} == {"function_app"}


def test_only_the_container_reads_the_environment() -> None:
    readers = {
        name
        for name in PATHS
        for node in ast.walk(tree(name))
        if (isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT)
        or (isinstance(node, ast.alias) and node.name in ENVIRONMENT)
    }
    assert readers == {"shared.container"}


def test_a_name_means_one_thing() -> None:
    modules = [name.rpartition(".")[2] for name in PATHS if PATHS[name].name != "__init__.py"]
    # Those of the record types are the user's to choose.
    own = PATHS.keys() - {"shared.partner"}
    classes = [node.name for name in own for node in tree(name).body if isinstance(node, ast.ClassDef)]
    assert repeated(modules) == ""
    assert repeated([name for name in classes if not name.startswith("_")]) == ""


def test_modules_are_few_and_small() -> None:
    shared = {name: path for name, path in PATHS.items() if name != "function_app"}
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in shared.items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
    assert len(shared) <= MOST_MODULES
