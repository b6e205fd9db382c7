from __future__ import annotations

import pytest

from tests.host_tests import OLDEST_PYTHON, host_tests, not_collected


def test_what_runs_the_host_is_told_from_what_does_not() -> None:
    names = {path.name for path in host_tests()}

    # By an import of its own, of a module of the tests, and by the fixtures beside it.
    assert {"test_host_engine.py", "test_histories.py", "test_trace_end_to_end.py"} <= names
    assert names.isdisjoint({"test_settings.py", "test_orchestrators.py", "test_openapi.py", "test_function_app.py"})


@pytest.mark.parametrize("python", [(3, 11), (3, 12, 9)])
def test_an_older_python_runs_all_but_those_of_the_host(python: tuple[int, ...]) -> None:
    assert not_collected(python) == host_tests() != []


@pytest.mark.parametrize("python", [OLDEST_PYTHON, (3, 14, 0)])
def test_the_host_s_python_and_later_ones_run_all(python: tuple[int, ...]) -> None:
    assert not_collected(python) == []
