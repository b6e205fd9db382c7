"""The queries ask for what there is, and the alert rules see what they are to see, however long ago it began.

Nothing here can run KQL: each table, column and function that is used stands in a list.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.bicep_template import text
from tests.infra_files import BY_NAME, INFRA, PROJECT, QUERIES, default, resource, value

if TYPE_CHECKING:
    from pathlib import Path

each_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: str(query.stem))
RULES = {"failedDeliveries": "failed-deliveries", "unfinishedDeliveries": "unfinished-deliveries"}
each_rule = pytest.mark.parametrize("name", RULES)
LOADED = r"loadTextContent\('\.\./queries/([\w-]+)\.kql'\)"

# learn.microsoft.com/azure/azure-monitor/reference/tables: those columns of these tables that are used.
TABLES = {"AppRequests", "AppDependencies", "AppTraces", "AppExceptions"}
COLUMNS = {
    *("TimeGenerated", "Name", "DurationMs", "Success", "ResultCode", "Properties", "OperationId", "Type"),
    *("Message", "OuterMessage"),
}
# learn.microsoft.com/kusto/query
OPERATORS = {
    *("let", "where", "extend", "project", "summarize", "distinct", "join", "kind", "on", "union", "order", "by"),
    *("leftouter", "leftanti", "asc", "desc", "and", "or", "in", "startswith", "true", "false"),
}
FUNCTIONS = {
    *("ago", "arg_max", "bin", "coalesce", "count", "countif", "ingestion_time", "max", "now", "percentile"),
    *("round", "take_any", "tostring"),
}


def code(query: Path) -> str:
    """Give a query without its comments."""
    return re.sub(r"^\s*//.*\n", "", query.read_text(), flags=re.MULTILINE)


def output_columns(query: str) -> set[str]:
    """Give the columns of a query's result: of its last projection, and what is added after it."""
    steps = query[query.rindex("| project") :].split("\n|")
    listed = steps[0].removeprefix("| project") + "".join(
        f",{step.removeprefix(' extend')}" for step in steps if step.startswith(" extend")
    )
    flat = re.sub(r"\([^()]*\)", "", re.sub(r"\([^()]*\)", "", listed))
    return {part.partition("=")[0].strip() for part in flat.split(",")}


def query_of(name: str) -> str:
    """Give the query that a rule runs, put together as Bicep does."""
    expression = value(resource("alerts", name), "properties", "criteria", "allOf", "query")
    if variable := BY_NAME["alerts"].declarations("variable").get(expression):
        expression = text(variable.node.named_children[-1])
    return re.sub(rf"\$\{{{LOADED}\}}|{LOADED}", lambda found: _query(found[1] or found[2]), expression)


def _query(stem: str) -> str:
    return (INFRA / "queries" / f"{stem}.kql").read_text()


def minutes(duration: str) -> int:
    """Give the minutes of an ISO 8601 duration."""
    [(days, hours, rest)] = re.findall(r"^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?)?$", duration)
    return int(days or 0) * 1440 + int(hours or 0) * 60 + int(rest or 0)


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
def test_a_query_uses_tables_columns_and_functions_that_there_are(query: Path) -> None:
    source = re.sub(r'"[^"]*"|\b\d[\w.]*\b', "", code(query))
    given = set(re.findall(r"\b(\w+) =(?![=~])", source))
    called = set(re.findall(r"\b(\w+)\(", source))
    assert called - FUNCTIONS - {"union"} == set()
    assert set(re.findall(r"\b\w+\b", source)) - given - called - TABLES - COLUMNS - OPERATORS == set()
    assert given & (TABLES | FUNCTIONS | OPERATORS) <= {"kind"}


@each_query
def test_a_query_asks_for_functions_spans_lines_and_fields_that_the_app_has(query: Path) -> None:
    content = query.read_text()
    app = (PROJECT / "function_app.py").read_text()
    source = app + "".join(path.read_text() for path in sorted((PROJECT / "shared").rglob("*.py")))
    platform = "".join(path.read_text() for path in sorted((PROJECT / "sandbox" / "host").rglob("*.py")))
    for kind, prefix in re.findall(r'Name startswith "(?:create_)?(\w+):(\w+)"', content):
        assert kind in {"orchestration", "activity"}
        assert re.search(rf'"{prefix}\w+"', source), f"no function's name begins with {prefix}"
    for name in re.findall(r'(?:Name|Message) == "([^"]+)"', content):
        assert f'"{name}"' in source
    for outcomes in re.findall(r"Outcome in \(([^)]*)\)", content):
        assert all(f"Outcome({outcome.strip()}," in source for outcome in outcomes.split(","))
    for field in re.findall(r'Properties\["([^"]+)"\]', content):
        assert f'"{field}"' in (platform if field.startswith("durabletask.") else source), field


@each_query
def test_a_delivery_is_dated_by_its_end_and_not_by_its_spans_time_which_is_its_start(query: Path) -> None:
    # Those that are about deliveries that have ended; one that has not has no other time than its start.
    if not re.search(r'^AppRequests\n\| where Name startswith "orchestration:', code(query), re.MULTILINE):
        return
    assert "Ended = TimeGenerated + DurationMs * 1ms" in code(query)
    assert not re.search(r"bin\(TimeGenerated|order by TimeGenerated|TimeGenerated [<>]", code(query))
    assert code(query).endswith("| order by Ended desc\n")


def test_two_queries_are_about_deliveries_that_have_ended() -> None:
    ended = [query.stem for query in QUERIES if "DurationMs * 1ms" in code(query)]
    assert ended == ["delivery-times", "failed-deliveries"]
    assert "bin(Ended, 5m)" in code(INFRA / "queries" / "delivery-times.kql")


def test_a_batch_with_rejected_records_and_one_that_gave_records_up_are_among_the_failed() -> None:
    content = code(INFRA / "queries" / "failed-deliveries.kql")
    # The last attempt at each record, and those of them that have not delivered it.
    assert "| summarize arg_max(TimeGenerated, Outcome, Why) by Instance, Record\n" in content
    assert '| where Outcome in ("rejected", "deferred")\n' in content
    assert "| join kind=leftouter undelivered on Instance\n| where Success == false or Records > 0\n" in content


@each_rule
def test_a_rule_runs_the_query_that_is_saved_whole(name: str) -> None:
    assert query_of(name).startswith(_query(RULES[name]))


def test_no_query_is_in_a_rule_that_is_not_tested() -> None:
    rules = BY_NAME["alerts"].declarations("resource").items()
    assert {name for name, each in rules if each.of.startswith("Microsoft.Insights/scheduledQueryRules@")} == set(RULES)


@each_rule
def test_a_rule_sees_what_began_as_long_ago_as_azure_lets_it_and_counts_all_of_it(name: str) -> None:
    rule = resource("alerts", name)
    assert value(rule, "properties", "overrideQueryTimeRange") == "lookBack"
    # The longest that there is: learn.microsoft.com/azure/azure-monitor/alerts/alerts-create-log-alert-rule
    assert default(BY_NAME["alerts"], "variable", "lookBack") == "P2D"
    # Of a result with this column, the rule would count only what lies in the last window.
    assert "TimeGenerated" not in output_columns(query_of(name))


def test_the_deadline_of_a_delivery_is_within_what_the_rules_see() -> None:
    documented = re.search(r"\| `DELIVERY_DEADLINE` \| `(\d+)`", (PROJECT / "docs" / "configuration.md").read_text())
    assert documented is not None
    assert int(documented[1]) / 60 < minutes("P2D") - 60


def test_a_failure_alerts_when_it_arrives_once_and_also_if_one_look_fails() -> None:
    properties = resource("alerts", "failedDeliveries")
    added = query_of("failedDeliveries").removeprefix(_query("failed-deliveries"))
    window = minutes(value(properties, "properties", "windowSize"))
    assert added == f"| where Arrived > ago({window}m)"
    assert "Arrived" in output_columns(_query("failed-deliveries"))
    assert "| extend Arrived = ingestion_time()\n" in _query("failed-deliveries")
    assert window == 3 * minutes(value(properties, "properties", "evaluationFrequency"))
    # Without it, each look at the same failure would be another alert.
    assert value(properties, "properties", "autoMitigate") == "true"


def test_deliveries_that_wait_are_counted_until_they_end() -> None:
    content = code(INFRA / "queries" / "unfinished-deliveries.kql")
    assert query_of("unfinishedDeliveries") == _query("unfinished-deliveries")
    assert re.findall(r"TimeGenerated [<>]=? \S+", content) == ["TimeGenerated < ago(1h)"]


@pytest.mark.parametrize(("name", "threshold"), [("failedDeliveries", "0"), ("unfinishedDeliveries", "100")])
def test_a_rule_alerts_at_more_rows_than_its_threshold(name: str, threshold: str) -> None:
    properties = resource("alerts", name)
    condition = {key: value(properties, "properties", "criteria", "allOf", key) for key in ("operator", "threshold")}
    assert condition == {"operator": "GreaterThan", "threshold": threshold}
    assert value(properties, "properties", "criteria", "allOf", "timeAggregation") == "Count"
    once = "{ numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }"
    assert value(properties, "properties", "criteria", "allOf", "failingPeriods") == once
    assert value(properties, "properties", "enabled") == "true"
    assert value(properties, "properties", "scopes") == "[workspace.id]"
    assert value(properties, "properties", "actions") == "{ actionGroups: empty(email) ? [] : [people.id] }"
    # The first deployment makes the workspace, too.
    assert value(properties, "properties", "skipQueryValidation") == "true"
