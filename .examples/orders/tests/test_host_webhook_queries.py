from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sandbox.host.durable import webhook_queries as queries
from sandbox.host.durable.task_hub import InstanceFilter
from sandbox.host.trace import new_trace_context, trace_context_of


def test_reads_flags_as_the_client_library_writes_them() -> None:
    assert queries.flag({"a": "True"}, "a")
    assert not queries.flag({"a": "false"}, "a", default=True)
    assert queries.flag({}, "a", default=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05 02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("yesterday", None),
        ("", None),
    ],
)
def test_reads_a_time_and_ignores_what_is_none(text: str, expected: datetime | None) -> None:
    assert queries.moment({"at": text}, "at") == expected


def test_reads_what_to_list_and_ignores_what_makes_no_sense() -> None:
    assert queries.instance_filter({}) == InstanceFilter(statuses=[])
    found = queries.instance_filter({"runtimeStatus": "running, Failed,Odd", "instanceIdPrefix": "a"})
    assert (set(found.statuses), found.prefix) == ({"Running", "Failed"}, "a")
    assert [queries.page_size(query) for query in ({}, {"top": "x"}, {"top": "7"})] == [100, 100, 7]


@pytest.mark.parametrize(
    ("instance_id", "is_allowed"),
    [("a:b~0", True), ("x" * 200, True), ("\u00e4", True), ("@x", False), ("a/b", False), ("a\x7f", False)],
)
def test_knows_which_instance_ids_the_extension_takes(instance_id: str, is_allowed: bool) -> None:  # noqa: FBT001 - a parameter
    assert (queries.instance_id_problem(instance_id) is None) is is_allowed


def test_reads_the_trace_of_a_request() -> None:
    made = new_trace_context()
    headers = {"traceparent": made.trace_parent, "tracestate": "a=1"}
    found = trace_context_of(headers)
    assert found is not None
    assert (found.trace_parent, found.trace_state) == (made.trace_parent, "a=1")
    for text in ("", "00-xyz", f"00-{'0' * 32}-{'1' * 16}-01"):
        assert trace_context_of({"traceparent": text}) is None
