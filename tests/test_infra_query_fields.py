"""Each property that a query asks for is one that the app's log lines and the host's spans really have.

The code that logs is run, and the queries' columns are worked out over what it has logged.
"""

from __future__ import annotations

import ast
import logging
import re
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from sandbox.host.durable.spans import INSTANCE_ID, DurableSpans
from sandbox.host.spans import Spans
from sandbox.host.trace import new_trace_context
from sandbox.sample import business
from shared.delivery.activities import make_attempt
from shared.delivery.attempt import Attempt
from shared.delivery.partner_gate import PartnerGate
from shared.telemetry_logs import TelemetryHandler
from tests.fakes.recorder import Recorder
from tests.fakes.scripted_partner import ScriptedPartner, missing, refused
from tests.infra_files import PROJECT, QUERIES
from tests.kql_tokens import split, tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

INSTANCE, RECORD = "key-1", "b-1"
# What the columns of a query are called, and what they are to show of the attempt and of the spans below.
MEANINGS = {
    "Instance": INSTANCE,
    "Record": RECORD,
    "Outcome": "rejected",
    "Why": "The partner answered 422",
    "Orchestrator": "DeliverBusiness",
}
ATTEMPT = ["Message", "==", '"delivery attempt"']
each_query = pytest.mark.parametrize(
    "query", [each.read_text() for each in QUERIES], ids=[each.stem for each in QUERIES]
)


async def attempt_line() -> Mapping[str, object]:
    """Make an attempt that the partner rejects; give the fields of its log line as they are sent."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK's
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger, handler = logging.getLogger("shared.delivery.activities"), TelemetryHandler(provider)
    partner = ScriptedPartner(missing(), refused(422))
    attempt = Attempt(business(RECORD), INSTANCE, "key", 1)
    logger.addHandler(handler)
    try:
        await make_attempt(attempt, partner.api, PartnerGate(lambda: 0.0))
    finally:
        logger.removeHandler(handler)
        provider.shutdown()
    [data] = exporter.get_finished_logs()
    assert data.log_record.body == "delivery attempt"
    return dict(data.log_record.attributes or {})


def delivery_spans() -> list[Mapping[str, object]]:
    """Give the attributes of the spans that a delivery begins and ends with, as the sandbox's host makes them."""
    recorder = Recorder()
    durable = DurableSpans(Spans(recorder.tracer_provider))
    creation = durable.creation("DeliverBusiness", None)
    creation.set(INSTANCE_ID, INSTANCE)
    creation.end()
    durable.orchestration("DeliverBusiness", INSTANCE, new_trace_context())
    durable.end_orchestration(INSTANCE, "Failed")
    recorder.shut_down()
    return [dict(span.attributes or {}) for span in recorder.spans]


def statements(query: str) -> list[list[str]]:
    return split(tokens(query), ";")


def columns(statement: list[str]) -> list[tuple[str, str]]:
    """Give the columns that a statement makes of properties, and these.

    What is compared with `instance` counts as the column `Instance`. Properties are used in no other way.
    """
    text = " ".join(statement)
    access = r'tostring \( Properties \[ "([^"]+)" \] \)'
    found: list[tuple[str, str]] = re.findall(rf"(\w+) = {access}", text)
    found += [("Instance", name) for name in re.findall(rf"{access} == instance\b", text)]
    assert len(found) == text.count("Properties [")
    return found


def is_about_lines(statement: list[str]) -> bool:
    """Tell whether a statement's properties are those of log lines; else they are those of spans."""
    return "AppTraces" in statement or "Message" in statement


@each_query
async def test_a_query_s_columns_show_what_they_are_called_after(query: str) -> None:
    line, spans = await attempt_line(), delivery_spans()
    for statement in statements(query):
        for column, name in columns(statement):
            for source in [line] if is_about_lines(statement) else spans:
                assert name in source, f"{name} is no property of what {column} is taken from"
                assert str(source[name]).startswith(MEANINGS[column]), column


@each_query
def test_the_only_line_that_a_query_asks_for_is_the_one_that_is_written_here(query: str) -> None:
    for statement in statements(query):
        asked = [statement[i : i + 3] for i, token in enumerate(statement) if token == "Message"]
        assert all(each == ATTEMPT for each in asked if each[1] == "==")


def test_the_queries_ask_for_lines_and_for_spans() -> None:
    asked = [
        (is_about_lines(statement), column)
        for query in QUERIES
        for statement in statements(query.read_text())
        for column, _ in columns(statement)
    ]
    assert {column for about_lines, column in asked if about_lines} == {"Instance", "Record", "Outcome", "Why"}
    assert {column for about_lines, column in asked if not about_lines} == {"Instance", "Orchestrator"}


@pytest.mark.parametrize("module", ["routes", "durable_client"])
def test_every_other_line_of_a_delivery_is_found_by_its_instance_id_too(module: str) -> None:
    # The query of one delivery asks every line for it, whatever the line says.
    tree = ast.parse((PROJECT / "shared" / "delivery" / f"{module}.py").read_text())
    extras = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict)
    ]
    assert extras
    for extra in extras:
        assert "instance_id" in {key.value for key in extra.keys if isinstance(key, ast.Constant)}
