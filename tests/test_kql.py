"""The reader of KQL follows columns as Kusto does, and refuses what is no query."""

from __future__ import annotations

import pytest

from tests.infra_files import INFRA
from tests.kql import read_query
from tests.kql_tokens import KqlError

WAITING = (INFRA / "queries" / "unfinished-deliveries.kql").read_text()
FAILED = (INFRA / "queries" / "failed-deliveries.kql").read_text()


@pytest.mark.parametrize(
    ("query", "columns", "joins"),
    [
        ("AppTraces | project A = Message, OperationId", ["A", "OperationId"], []),
        ("AppTraces | project Message | extend B = 1 | extend Message = 2 * B", ["B", "Message"], []),
        (
            "AppRequests | summarize N = count(), arg_max(DurationMs, Name) by bin(TimeGenerated, 5m), T = Type",
            ["TimeGenerated", "T", "N", "DurationMs", "Name"],
            [],
        ),
        ("AppRequests | summarize arg_min(DurationMs, Name) by Type", ["Type", "DurationMs", "Name"], []),
        ("AppRequests | distinct OperationId", ["OperationId"], []),
        ("union (AppTraces | project A = Message), (AppTraces | project A = Type, B = now())", ["A", "B"], []),
        (
            "let a = AppTraces | project Type, B = 1; AppTraces | project Type | join kind=inner a on Type",
            ["Type", "Type1", "B"],
            ["inner"],
        ),
        (
            "let a = AppTraces | project Type, B = 1; AppTraces | project Type | join kind=leftanti a on Type",
            ["Type"],
            ["leftanti"],
        ),
        (
            'let a = "x"; let b = AppTraces; AppRequests | where Type in (b) or Name == a | distinct Name',
            ["Name"],
            [],
        ),
        (
            'AppTraces // all\n| where (1 + 2) * 3 > 4 and tostring(Properties["a"]) in ("b", "c")\n| project Type',
            ["Type"],
            [],
        ),
    ],
)
def test_the_columns_of_a_query_are_those_after_its_last_step(query: str, columns: list[str], joins: list[str]) -> None:
    found = read_query(query)
    assert (found.columns, found.joins) == (columns, joins)


def test_a_query_needs_the_tables_that_it_reads_without_an_empty_one_beside_them() -> None:
    fuzzy = "union isfuzzy=true AppTraces, (AppRequests | extend A = 1), (datatable(Type: string) [])"
    assert (read_query(fuzzy).columns, read_query(fuzzy).needs) == (["Type"], set())
    assert read_query(f"let a = {fuzzy}; AppExceptions | where Type in (a)").needs == {"AppExceptions"}
    assert read_query("union AppTraces, (AppRequests | distinct Type)").needs == {"AppTraces", "AppRequests"}


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (FAILED.replace("| project Ended, Arrived,", "| project Ended, Arrived, Outcome,"), "Outcome: not there"),
        (FAILED.replace(" Message: string,", ""), "Message: not there"),
        (FAILED.replace("DurationMs: real", "DurationMs: long"), "DurationMs : long: not a column of that type"),
        (FAILED.replace("Arrived: datetime, Name", "Arrival: datetime, Name"), "Arrival: in the empty table only"),
        (WAITING.replace("datatable(", "print("), "no table"),
        ("union isfuzzy=true AppTraces, AppRequests", "AppRequests: an empty table is to be the last"),
        (FAILED.replace(", Outcome, Why) by", ", Outcome) by"), "Why: not there"),
        (FAILED.replace("    Success,\n", ""), "Success: not there"),
        (FAILED.replace("    OperationId\n", "    Arrived\n"), "OperationId: not on both sides"),
        (WAITING.replace("kind=leftouter ended", "ended"), "not a known step"),
        (WAITING.replace("leftouter ended", "leftuoter ended"), "leftuoter: not a known kind"),
        (WAITING.replace("leftouter ended", "leftanti ended"), "Ended: not there"),
        (WAITING.replace("arg_min(Began, Orchestrator)", "arg_min(Began)"), "Orchestrator: not there"),
        (WAITING.replace("DurationMs: real, ", ""), "DurationMs: not there"),
        (WAITING.replace("ended on", "finished on"), "finished: no table"),
        (WAITING.replace("deferred on Instance", "deferred on Record"), "Record: not on both sides"),
        ("AppRequests | where Message == 1", "Message: not there"),
        ("AppRequests | where Nmae == 1", "Nmae: not there"),
        ("AppRequest", "AppRequest: no table"),
        ("AppRequests | wehre Success", "not a known step"),
        ("AppRequests | where frobnicate(Name)", "frobnicate: not there"),
        ("AppRequests | where count() > 1", "count: not there"),
        ("AppRequests | where Success == false Name == 1", "is no expression"),
        ("AppRequests | where Success == ", "an operand is missing"),
        ("AppRequests | where Success == == 1", "is no expression"),
        ("AppRequests | where (Success", "is not closed"),
        ("AppRequests | where Success)", "closes nothing"),
        ("AppRequests | where Name = 'a'", "is not known"),
        ("AppRequests | project Name DurationMs", "has no name"),
        ("AppRequests | extend round(DurationMs, 1)", "has no name"),
        ("AppRequests | extend A = 1, B = A", "A: not there"),
        ("AppRequests | summarize count() by Name", "not an aggregation"),
        ("AppRequests | summarize A = Name by Name", "not an aggregation"),
        ("AppRequests | summarize A = count()", "say by what"),
        ("AppRequests | order by Name", "say asc or desc"),
        ("set a = AppRequests; AppRequests", "not a definition"),
        ("let a = AppRequests; AppRequests | where Name in (b)", "b: not there"),
    ],
)
def test_what_is_no_query_is_refused(query: str, problem: str) -> None:
    with pytest.raises(KqlError, match=problem):
        read_query(query)
