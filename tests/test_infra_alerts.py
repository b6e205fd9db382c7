"""The alert rules run saved queries, see all that they are to see, however long ago it began, and tell somebody."""

from __future__ import annotations

import re

import pytest

from tests.bicep_template import text
from tests.infra_files import BY_NAME, INFRA, LOADED, PROJECT, default, parameters_of_module, resource, value
from tests.kql import read_query

RULES = {"failedDeliveries": "failed-deliveries", "unfinishedDeliveries": "unfinished-deliveries"}
each_rule = pytest.mark.parametrize("name", RULES)


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


@each_rule
def test_a_rule_s_query_names_what_there_is_at_each_step(name: str) -> None:
    # Azure is told not to look: see skipQueryValidation.
    assert read_query(query_of(name)).columns == read_query(_query(RULES[name])).columns


@each_rule
def test_a_rule_s_query_works_before_a_table_has_its_first_row_and_long_after_its_last(name: str) -> None:
    # A rule whose query fails for a week is switched off, and one fails where a table has no data, or none for 30 days
    # (MicrosoftDocs/azure-monitor-docs: articles/azure-monitor/alerts/alerts-troubleshoot-log.md).
    assert read_query(query_of(name)).needs == set()


@each_rule
def test_a_rule_runs_the_query_that_is_saved_whole(name: str) -> None:
    assert query_of(name).startswith(_query(RULES[name]))
    assert query_of("unfinishedDeliveries") == _query("unfinished-deliveries")


def test_no_query_is_in_a_rule_that_is_not_tested() -> None:
    rules = BY_NAME["alerts"].declarations("resource").items()
    assert {name for name, each in rules if each.of.startswith("Microsoft.Insights/scheduledQueryRules@")} == set(RULES)


@each_rule
def test_a_rule_sees_what_began_as_long_ago_as_azure_lets_it_and_counts_all_of_it(name: str) -> None:
    rule = resource("alerts", name)
    assert value(rule, "properties", "overrideQueryTimeRange") == "lookBack"
    # The longest that there is: learn.microsoft.com/azure/azure-monitor/alerts/alerts-create-log-alert-rule
    # (MicrosoftDocs/azure-monitor-docs: articles/azure-monitor/alerts/alerts-create-log-alert-rule.md).
    assert default(BY_NAME["alerts"], "variable", "lookBack") == "P2D"
    # Of a result with this column, the rule would count only what lies in the last window.
    assert "TimeGenerated" not in read_query(query_of(name)).columns


def test_the_deadline_of_a_delivery_is_within_what_the_rules_see() -> None:
    documented = re.search(r"\| `DELIVERY_DEADLINE` \| `(\d+)`", (PROJECT / "docs" / "configuration.md").read_text())
    assert documented is not None
    assert int(documented[1]) / 60 < minutes("P2D") - 60


def test_a_failure_alerts_when_it_arrives_once_and_also_if_one_look_fails() -> None:
    properties = resource("alerts", "failedDeliveries")
    added = query_of("failedDeliveries").removeprefix(_query("failed-deliveries"))
    window = minutes(value(properties, "properties", "windowSize"))
    assert added == f"| where Arrived > ago({window}m)"
    # On the table itself: of the empty one beside it, nothing has arrived.
    assert "(AppRequests | extend Arrived = ingestion_time())" in _query("failed-deliveries")
    assert window == 3 * minutes(value(properties, "properties", "evaluationFrequency"))


@each_rule
def test_a_rule_alerts_at_the_first_row(name: str) -> None:
    properties = resource("alerts", name)
    condition = {key: value(properties, "properties", "criteria", "allOf", key) for key in ("operator", "threshold")}
    assert condition == {"operator": "GreaterThan", "threshold": "0"}
    assert value(properties, "properties", "criteria", "allOf", "timeAggregation") == "Count"
    once = "{ numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }"
    assert value(properties, "properties", "criteria", "allOf", "failingPeriods") == once
    assert value(properties, "properties", "enabled") == "true"
    assert value(properties, "properties", "scopes") == "[workspace.id]"
    assert value(properties, "properties", "actions") == "{ actionGroups: empty(email) ? [] : [people.id] }"
    # Without it, each look at the same delivery would be another alert.
    assert value(properties, "properties", "autoMitigate") == "true"
    # The first deployment makes the workspace, too, and a query of tables that are not there yet would end it.
    assert value(properties, "properties", "skipQueryValidation") == "true"


def test_who_is_told_is_whose_address_is_set_and_the_group_is_switched_on() -> None:
    people = resource("alerts", "people")
    assert "= if (!empty(email)) {" in text(people)
    assert value(people, "properties", "enabled") == "true"
    receivers = "[ { name: 'operator', emailAddress: email, useCommonAlertSchema: true } ]"
    assert value(people, "properties", "emailReceivers") == receivers
    assert parameters_of_module("alerts")["email"] == "alertEmail"
