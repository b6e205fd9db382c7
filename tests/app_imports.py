"""Which distributions the app imports, and where: at the top of a module or in a function."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWN = {"shared", "function_app"}
# What imports by a name that is only known when it runs.
IMPORTERS = {"import_module", "__import__", "resolve_name", "run_module"}


@dataclass(frozen=True, slots=True)
class Import:
    """One import of another distribution; `None` where the name of the module is not a constant."""

    path: str
    line: int
    distribution: str | None
    is_in_a_function: bool


def imports_of(path: Path, project: Path) -> list[Import]:
    """Give the imports of a file that are not Python's own or the app's."""
    name = path.relative_to(project).as_posix()
    found: list[Import] = []
    for node, is_in_a_function in _nodes(ast.parse(path.read_text(encoding="utf-8"))):
        for module in _modules(node):
            if module is None or module.partition(".")[0] not in OWN | sys.stdlib_module_names:
                distribution = None if module is None else distribution_of(module)
                found.append(Import(name, getattr(node, "lineno", 0), distribution, is_in_a_function))
    return found


def _nodes(node: ast.AST, *, is_in_a_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    yield node, is_in_a_function
    inside = is_in_a_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in ast.iter_child_nodes(node):
        yield from _nodes(child, is_in_a_function=inside)


def _modules(node: ast.AST) -> list[str | None]:
    """Give the modules that a node imports, None for one that is not known."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        # Another name for import_module would hide its calls.
        hidden = [None for alias in node.names if alias.name in IMPORTERS and alias.asname]
        return [f"{node.module}.{alias.name}" for alias in node.names] + hidden
    if isinstance(node, ast.Call) and _last_name(node.func) in IMPORTERS:
        first = node.args[0] if node.args else None
        is_constant = isinstance(first, ast.Constant) and isinstance(first.value, str)
        # "module:object", as resolve_name takes it.
        return [str(first.value).partition(":")[0] if is_constant and isinstance(first, ast.Constant) else None]
    return []


def _last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def distribution_of(module: str) -> str:
    """Give the distribution that has a module, or the module that a name is imported from.

    Several share the folders "azure" and "opentelemetry": what counts is whose the file is.

    Raises:
        LookupError: none that is installed has it.
    """
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        if owner := _owners().get(".".join(parts[:count])):
            return owner
    raise LookupError(f"no distribution has the module {module}")


@cache
def _owners() -> dict[str, str]:
    """Give the distribution of each module that is installed, by its name."""
    owners: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            # "x.cpython-313-x86_64-linux-gnu.so" is the module "x".
            stem, _, ending = file.name.partition(".")
            if ending == "py" or file.suffix in {".so", ".pyd"}:
                module = ".".join([*file.parts[:-1], *([] if stem == "__init__" else [stem])])
                owners[module] = canonicalize_name(distribution.metadata["Name"])
    return owners
