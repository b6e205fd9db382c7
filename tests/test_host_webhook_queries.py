from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sandbox.host.durable import webhook_queries as queries
from sandbox.host.trace import new_trace_context, trace_context_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.000006Z", datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
        ("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05 02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("", None),
    ],
)
def test_reads_a_time(text: str, expected: datetime | None) -> None:
    assert queries.moment({"createdTimeFrom": text}, "createdTimeFrom") == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("True", True), ("true", True), ("False", False), ("", False), ("1", False)]
)
def test_reads_a_yes_or_no(text: str, *, expected: bool) -> None:
    assert queries.flag({"showInput": text}, "showInput", default=True) is expected
    assert queries.flag({}, "showInput", default=expected) is expected


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_refuses_seconds_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"timeout|convert"):
        queries.seconds({"timeout": text}, "timeout")


def test_reads_seconds() -> None:
    assert queries.seconds({"timeout": "1.5"}, "timeout") == 1.5
    assert queries.seconds({}, "timeout") is None


@pytest.mark.parametrize("instance_id", ["a", "A-b_c.d~e:0001", "x" * 100, "ä"])
def test_allows_ordinary_instance_ids(instance_id: str) -> None:
    queries.check_instance_id(instance_id)


@pytest.mark.parametrize("instance_id", ["@x", "x" * 101, "a/b", "a\\b", "a#b", "a?b", "a\nb", "a\x7fb"])
def test_refuses_odd_instance_ids(instance_id: str) -> None:
    with pytest.raises(ValueError, match="An instance id must"):
        queries.check_instance_id(instance_id)


def test_takes_the_trace_of_a_caller_only_where_it_is_well_formed() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = trace_context_of({"traceparent": parent, "tracestate": "a=b"})
    assert context is not None
    assert (context.trace_parent, context.trace_state) == (parent, "a=b")
    for broken in ("", "junk", parent.upper(), parent.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)):
        assert trace_context_of({"traceparent": broken}) is None


def test_begins_a_well_formed_trace() -> None:
    context = new_trace_context()
    assert trace_context_of({"traceparent": context.trace_parent}) == context
