"""requirements.txt has what the app imports, and nothing else; what is an extra is imported in its own places alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.app_imports import Import, imports_of
from tests.pinned import PROJECT, extra_pins, requirements

if TYPE_CHECKING:
    from pathlib import Path

# Which extras a module may import, in a function and not before. Elsewhere a package of an extra is a mistake.
OPTIONAL = {
    "shared/auth/token_store.py": {"redis"},
    "shared/telemetry_export.py": {"opentelemetry-sdk"},
}
# Where a setting names the module that is imported, in a function as well.
DYNAMIC = {"shared/telemetry_export.py"}


def app_imports(project: Path = PROJECT) -> list[Import]:
    paths = [project / "function_app.py", *sorted((project / "shared").rglob("*.py"))]
    return [found for path in paths for found in imports_of(path, project)]


def is_optional(found: Import) -> bool:
    """Tell whether a package may be missing where it is imported: the app goes on without."""
    return found.is_in_a_function and found.distribution in OPTIONAL.get(found.path, set())


def test_the_app_requires_what_it_imports_and_nothing_else() -> None:
    imported = {found.distribution for found in app_imports() if found.distribution and not is_optional(found)}
    assert set(requirements()) == imported


def test_the_app_imports_by_a_name_that_is_not_constant_in_named_places_only() -> None:
    dynamic = [found for found in app_imports() if found.distribution is None]
    assert {found.path for found in dynamic} == DYNAMIC
    assert all(found.is_in_a_function for found in dynamic)


def test_what_is_optional_is_imported_and_is_not_required() -> None:
    optional = {(found.path, found.distribution) for found in app_imports() if is_optional(found)}
    assert optional == {(path, name) for path, names in OPTIONAL.items() for name in names}
    assert {name for names in OPTIONAL.values() for name in names} <= set(extra_pins()) - set(requirements())


@pytest.mark.parametrize(
    ("source", "distribution", "is_in_a_function"),
    [
        ("import redis", "redis", False),
        ("if TYPE_CHECKING:\n    from redis.asyncio import Redis", "redis", False),
        ("def f():\n    import redis.backoff", "redis", True),
        ("from opentelemetry import trace", "opentelemetry-api", False),
        ("import opentelemetry.sdk.trace", "opentelemetry-sdk", False),
        ("from opentelemetry.sdk import trace", "opentelemetry-sdk", False),
        ("from opentelemetry import semconv", "opentelemetry-semantic-conventions", False),
        ("import azure.durable_functions as df", "azure-functions-durable", False),
        ("from azure import functions", "azure-functions", False),
        ("importlib.import_module('yaml')", "pyyaml", False),
        ("import_module('yaml')", "pyyaml", False),
        ("class A:\n    async def f(self):\n        return __import__('yaml')", "pyyaml", True),
        ("def f():\n    return pkgutil.resolve_name('yaml:safe_load')", "pyyaml", True),
        ("runpy.run_module('yaml')", "pyyaml", False),
        ("importlib.import_module(name)", None, False),
        ("__import__(name=name)", None, False),
    ],
)
def test_an_import_is_told_by_its_distribution(
    tmp_path: Path, source: str, distribution: str | None, *, is_in_a_function: bool
) -> None:
    path = tmp_path / "module.py"
    path.write_text(f"import json\nimport shared.errors\n{source}\n")
    [found] = imports_of(path, tmp_path)
    assert (found.distribution, found.is_in_a_function) == (distribution, is_in_a_function)


def test_another_name_for_import_module_is_not_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("from importlib import import_module as load\n")
    assert [found.distribution for found in imports_of(path, tmp_path)] == [None]


def test_a_module_that_nobody_has_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("import opentelemetry.no_such_module\n")
    with pytest.raises(LookupError, match=r"no distribution has the module opentelemetry\.no_such_module"):
        imports_of(path, tmp_path)
