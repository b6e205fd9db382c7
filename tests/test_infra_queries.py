"""The queries ask for what there is, and give what they say.

Nothing here can run KQL: `tests.kql` follows which columns there are, from step to step. test_infra_query_fields.py
has what they are made of.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.infra_files import BY_NAME, INFRA, LOADED, PROJECT, QUERIES
from tests.kql import read_query

if TYPE_CHECKING:
    from pathlib import Path

each_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: str(query.stem))

# Each query's columns in their order, and the kinds of its joins: rules, and what others have built, rely on them.
RESULTS = {
    "delivery-times": (
        ["Ended", "Orchestrator", "Deliveries", "Failed", "MedianSeconds", "P95Seconds", "LongestSeconds"],
        [],
    ),
    "failed-deliveries": (
        ["Ended", "Arrived", "Instance", "Orchestrator", "Records", "Reason", "Seconds", "OperationId"],
        # All deliveries stay, with what is known of their records and errors.
        ["leftouter", "leftouter"],
    ),
    "one-delivery": (
        ["TimeGenerated", "Kind", "What", "ResultCode", "Success", "Milliseconds", "Properties"],
        [],
    ),
    "partner-calls": (
        ["TimeGenerated", "What", "ResultCode", "Calls", "Failed", "MedianMilliseconds", "P95Milliseconds"],
        [],
    ),
    "unfinished-deliveries": (
        ["Began", "Instance", "Orchestrator", "Hours", "Records", "Reason"],
        # All stay with their last end, by which the others are told from those that began again; and all those with
        # what is known of their records.
        ["leftouter", "leftouter"],
    ),
}


# Those that are about deliveries that have ended.
ENDED = ["delivery-times", "failed-deliveries"]


def code(query: Path) -> str:
    """Give a query without its comments."""
    return re.sub(r"^\s*//.*\n", "", query.read_text(), flags=re.MULTILINE)


def test_all_queries_are_saved_in_the_workspace() -> None:
    saved = re.findall(LOADED, BY_NAME["monitoring"].text)
    assert sorted(saved) == [query.stem for query in QUERIES]
    names = re.findall(r"name: '([\w-]+)'\n\s+title: '[^']+'\n\s+query: " + LOADED, BY_NAME["monitoring"].text)
    assert names == [(stem, stem) for stem in saved]


@each_query
def test_a_query_says_what_it_shows_and_is_balanced(query: Path) -> None:
    content = query.read_text()
    assert content.startswith("// ")
    # A rule may add a step of its own.
    assert content.endswith("\n")
    for pair in ("()", "[]"):
        assert content.count(pair[0]) == content.count(pair[1])
    assert content.count('"') % 2 == 0


@each_query
def test_a_query_names_what_there_is_at_each_step_and_gives_what_it_is_to_give(query: Path) -> None:
    found = read_query(query.read_text())
    assert (found.columns, found.joins) == RESULTS[query.stem]


@each_query
def test_a_query_asks_for_functions_spans_and_lines_that_the_app_has(query: Path) -> None:
    content = query.read_text()
    app = (PROJECT / "function_app.py").read_text()
    source = app + "".join(path.read_text() for path in sorted((PROJECT / "shared").rglob("*.py")))
    for kind, prefix in re.findall(r'Name startswith "(?:create_)?(\w+):(\w+)"', content):
        assert kind in {"orchestration", "activity"}
        assert re.search(rf'"{prefix}\w+"', source), f"no function's name begins with {prefix}"
    for name in re.findall(r'(?:Name|Message) == "([^"]+)"', content):
        assert f'"{name}"' in source
    for outcomes in re.findall(r"Outcome (?:in \(|== )([^)\n]*)", content):
        assert all(f"Outcome({outcome.strip()}," in source for outcome in outcomes.split(","))


@each_query
def test_a_delivery_is_dated_by_its_end_and_not_by_its_spans_time_which_is_its_start(query: Path) -> None:
    # Those that are about deliveries that have ended; one that has not has no other time than its start.
    if query.stem not in ENDED:
        return
    assert "Ended = TimeGenerated + DurationMs * 1ms" in code(query)
    assert not re.search(r"bin\(TimeGenerated|order by TimeGenerated|TimeGenerated [<>]", code(query))
    assert code(query).endswith("| order by Ended desc\n")


def test_two_queries_are_about_deliveries_that_have_ended() -> None:
    assert [query.stem for query in QUERIES if "Ended = TimeGenerated + DurationMs * 1ms" in code(query)] == ENDED
    # This one needs the end to tell which have not.
    computed = [query.stem for query in QUERIES if "DurationMs * 1ms" in code(query)]
    assert computed == [*ENDED, "unfinished-deliveries"]
    assert "bin(Ended, 5m)" in code(INFRA / "queries" / "delivery-times.kql")


def test_a_batch_with_rejected_records_and_one_that_gave_records_up_are_among_the_failed() -> None:
    content = code(INFRA / "queries" / "failed-deliveries.kql")
    # The last attempt at each record, and those of them that have not delivered it.
    assert "| summarize arg_max(TimeGenerated, Outcome, Why) by Instance, Record\n" in content
    assert '| where Outcome in ("rejected", "deferred")\n' in content
    assert "| join kind=leftouter undelivered on Instance\n| where Success == false or Records > 0\n" in content


def test_deliveries_that_wait_are_shown_until_they_end_with_their_records_that_wait() -> None:
    content = code(INFRA / "queries" / "unfinished-deliveries.kql")
    assert re.findall(r"TimeGenerated [<>]=? \S+", content) == ["TimeGenerated < ago(1h)"]
    assert "| join kind=leftouter deferred on Instance\n" in content
    assert "| summarize arg_max(TimeGenerated, Outcome, Why) by Instance, Record\n" in content
    assert '| where Outcome == "deferred"\n' in content


def test_a_delivery_that_began_again_after_its_last_end_is_shown_since_then() -> None:
    content = code(INFRA / "queries" / "unfinished-deliveries.kql")
    # One end for each instance, its last: with several, a delivery would be compared with each of them.
    ended = re.search(r"^let ended =\n    allRequests\n(.*?);$", content, re.MULTILINE | re.DOTALL)
    assert ended is not None
    instance = 'Instance = tostring(Properties["durabletask.task.instance_id"])'
    assert (
        ended[1].split()
        == (
            '| where Name startswith "orchestration:Deliver" '
            f"| summarize Ended = max(TimeGenerated + DurationMs * 1ms) by {instance}"
        ).split()
    )
    # Most have no end at all. Of several beginnings since the last end all but the first were refused.
    assert (
        "| join kind=leftouter ended on Instance\n"
        "| where isnull(Ended) or Began > Ended\n"
        "| summarize arg_min(Began, Orchestrator) by Instance\n"
        "| join kind=leftouter deferred on Instance\n"
    ) in content
    # No join takes an instance away because of an end that it had before.
    assert not re.search("leftanti|rightanti|leftsemi|!in", content)
