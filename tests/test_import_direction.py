"""The arrows between the rooms, held by the imports themselves: function_app -> container, delivery -> api -> auth."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [ROOT / "function_app.py", *sorted((ROOT / "shared").rglob("*.py"))]
}
# Modules that may be imported from anywhere, and import nothing of ours but each other.
LEAVES = {
    "shared.errors",
    "shared.retry_after",
    "shared.telemetry",
    "shared.proxy",
    "shared.setting_reference",
    "shared.auth.access_token",
    "shared.auth.challenges",
    "shared.auth.token_endpoint",
    "shared.delivery.exchange",
    "shared.delivery.outcome",
    "shared.delivery.retry",
    "shared.api.strict_json",
    "shared.text",
}
ORCHESTRATORS = [name for name in MODULES if "orchestrat" in name]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported_names(node: ast.AST) -> set[str]:
    """The modules that an import names; of "from shared.delivery import routes" it is the module routes."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        submodules = {f"{node.module}.{alias.name}" for alias in node.names}
        return (submodules & MODULES.keys()) or {node.module or ""}
    return set()


def imports_of(tree: ast.AST, *, for_types: bool) -> set[str]:
    """All that is imported anywhere in the tree; with `for_types` also what only the type checker sees."""
    found = imported_names(tree)
    if is_type_checking(tree) and not for_types:
        assert isinstance(tree, ast.If)
        return set().union(*(imports_of(child, for_types=for_types) for child in tree.orelse))
    return found.union(*(imports_of(child, for_types=for_types) for child in ast.iter_child_nodes(tree)))


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
IMPORTS = {name: imports_of(tree, for_types=False) for name, tree in TREES.items()}
ALL_IMPORTS = {name: imports_of(tree, for_types=True) for name, tree in TREES.items()}


def importers(*packages: str, seen_by_types: bool = True) -> set[str]:
    """The modules that import one of these packages."""
    imports = ALL_IMPORTS if seen_by_types else IMPORTS
    return {
        name
        for name, found in imports.items()
        if any(module == package or module.startswith(f"{package}.") for module in found for package in packages)
    }


def room(name: str) -> set[str]:
    return {module for module in MODULES if module.startswith(f"shared.{name}.")}


def test_the_rooms_are_where_the_test_looks_for_them() -> None:
    assert {len(room(name)) > 3 for name in ("auth", "api", "delivery")} == {True}
    assert len(ORCHESTRATORS) >= 1
    assert MODULES.keys() >= LEAVES


def test_only_the_function_app_imports_azure() -> None:
    assert importers("azure") == {"function_app"}


def test_only_the_container_reads_the_environment() -> None:
    readers = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "getenvb"})
        or (isinstance(node, ast.Name) and node.id in {"getenv", "getproxies"})
        or (isinstance(node, ast.Attribute) and node.attr in {"getproxies", "proxy_bypass"})
    }
    assert readers == {"shared.container"}
    assert importers("dotenv") == set()


def test_only_the_function_app_imports_the_container() -> None:
    assert importers("shared.container") == {"function_app"}
    assert importers("function_app") == set()


def test_auth_knows_nothing_of_the_other_rooms() -> None:
    rooms = importers("shared.api", "shared.delivery", "shared.settings", "shared.client", "shared.container")
    assert rooms & room("auth") == set()


def test_the_api_knows_nothing_of_deliveries_and_settings() -> None:
    assert importers("shared.delivery", "shared.settings", "shared.client", "shared.container") & room("api") == set()


def test_deliveries_know_nothing_of_http_clients_and_tokens() -> None:
    clients = importers(
        "httpx", "aiohttp", "httpx_aiohttp", "requests", "msal", "urllib.request", "http.client", "socket"
    )
    assert clients & room("delivery") == set()
    assert importers("shared.client", "shared.grants") & room("delivery") == set()
    of_auth = {module for name in room("delivery") for module in ALL_IMPORTS[name] if module.startswith("shared.auth")}
    assert of_auth <= LEAVES


@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_an_orchestrator_has_no_clock_no_chance_and_no_input_or_output(name: str) -> None:
    forbidden = {
        "time",
        "random",
        "secrets",
        "uuid",
        "os",
        "asyncio",
        "logging",
        "threading",
        "socket",
        "pathlib",
        "io",
    }
    assert {module.partition(".")[0] for module in IMPORTS[name]} & forbidden == set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input", "id", "hash", "exec", "eval"}


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_a_leaf_imports_nothing_of_ours_but_leaves(name: str) -> None:
    assert {module for module in ALL_IMPORTS[name] if module.startswith("shared")} <= LEAVES


def test_there_are_no_cycles() -> None:
    graph = {name: {module for module in found if module in MODULES} for name, found in IMPORTS.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError where there is one
    assert set(order) == set(MODULES)


def test_nothing_of_the_app_imports_what_is_not_deployed() -> None:
    assert importers("tests", "sandbox", "benchmarks", "deployment", "pytest") == set()


def run(code: str) -> str:
    """What a fresh Python of ours prints."""
    done = subprocess.run(  # noqa: S603, the code is this module's own
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100
    )
    return done.stdout.strip()


def test_importing_the_app_brings_in_no_http_client_and_no_token_library() -> None:
    code = """
import sys
import azure.durable_functions, azure.functions
before = set(sys.modules)
import function_app
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    brought = set(run(code).split())
    assert {"function_app", "shared", "msgspec"} <= brought
    heavy = {"httpx", "httpx_aiohttp", "httpcore", "aiohttp", "msal", "requests", "cryptography", "jwt", "redis", "ssl"}
    assert brought & heavy == set()


def test_importing_the_app_brings_in_few_modules_and_little_memory() -> None:
    code = """
import sys, tracemalloc
import azure.durable_functions, azure.functions
before = set(sys.modules)
tracemalloc.start()
import function_app
_, peak = tracemalloc.get_traced_memory()
others = {name for name in set(sys.modules) - before if name.partition(".")[0] not in {"function_app", "shared"}}
print(len(others), len(set(sys.modules) - before), peak)
"""
    others, modules, peak = map(int, run(code).split())
    # Counted on Python 3.11 to 3.13: 12 (all of msgspec), and 52 with ours. Most of the memory is the compiler's.
    assert 0 < others <= 18
    assert others < modules <= 70
    assert 0 < peak <= 8 * 1024 * 1024


def test_importing_the_app_makes_nothing() -> None:
    code = """
import asyncio, os, socket, threading
def refuse(*_, **__):
    raise AssertionError("this happens at import")
import azure.durable_functions, azure.functions
socket.socket.connect = asyncio.new_event_loop = threading.Thread.start = refuse
os.environ.clear()
import function_app
print(function_app.container._clients, function_app.container._settings)
"""
    assert run(code) == "{} {}"
