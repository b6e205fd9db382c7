from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from sandbox.host.durable.spans import INSTANCE_ID, DurableSpans
from sandbox.host.errors import StartError
from sandbox.host.messages import TraceContext
from sandbox.host.spans import Spans, spans_from_settings, worker_settings
from sandbox.host.trace import trace_context_of
from tests.fakes.otlp_collector import OtlpCollector
from tests.fakes.recorder import Recorder
from tests.host_apps.host_process import APPS, HostProcess, running_host, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = TraceContext(trace_parent=f"00-{TRACE}-b7ad6b7169203331-01", trace_state="a=1")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.shut_down()


@pytest.fixture
def spans(recorder: Recorder) -> Spans:
    return Spans(recorder.tracer_provider)


def test_a_span_that_goes_nowhere_is_the_trace_context_it_was_given() -> None:
    span = Spans().begin("one", SpanKind.SERVER, CALLER, {})
    span.set("a", 1)
    span.end(failed=True)
    assert span.context is CALLER


def test_where_spans_go_nowhere_a_trace_begins_all_the_same() -> None:
    context = Spans().begin("one", SpanKind.SERVER, None, {}).context
    assert trace_context_of({"traceparent": context.trace_parent}) is not None


def test_a_span_hangs_below_its_parent_and_hands_its_own_context_on(spans: Spans, recorder: Recorder) -> None:
    span = spans.begin("one", SpanKind.SERVER, CALLER, {"a": "b"})
    span.set("c", 1)
    span.end()
    found = recorder.named("one")
    assert found.parent is not None
    assert (f"{found.parent.span_id:016x}", found.status.status_code) == ("b7ad6b7169203331", StatusCode.UNSET)
    assert span.context.trace_parent == f"00-{TRACE}-{found.context.span_id:016x}-01"
    assert span.context.trace_state == "a=1"
    assert dict(found.attributes or {}) == {"a": "b", "c": 1}


def test_a_span_without_a_parent_begins_a_trace(spans: Spans, recorder: Recorder) -> None:
    span = spans.begin("one", SpanKind.SERVER, None, {})
    span.end(failed=True)
    found = recorder.named("one")
    assert (found.parent, found.status.status_code) == (None, StatusCode.ERROR)
    assert f"{found.context.trace_id:032x}" in span.context.trace_parent


def test_an_orchestration_is_one_span_however_many_steps_it_takes(spans: Spans, recorder: Recorder) -> None:
    durable = DurableSpans(spans)
    contexts = [durable.orchestration("O", "i", CALLER) for _ in range(3)]
    assert durable.context_of("i") == contexts[0]
    durable.end_orchestration("i", "Completed")
    durable.end_orchestration("i", "Completed")
    assert len(set(contexts)) == 1
    found = recorder.named("orchestration:O")
    assert (found.kind, found.status.status_code) == (SpanKind.SERVER, StatusCode.UNSET)
    assert dict(found.attributes or {}) == {
        "durabletask.type": "orchestration",
        "durabletask.task.name": "O",
        INSTANCE_ID: "i",
        "durabletask.task.status": "Completed",
    }


def test_an_instance_that_has_ended_or_never_was_has_no_context(spans: Spans) -> None:
    durable = DurableSpans(spans)
    durable.orchestration("O", "i", CALLER)
    durable.end_orchestration("i", "Failed")
    assert [durable.context_of(instance_id) for instance_id in ("i", "other", None)] == [None, None, None]


@pytest.mark.parametrize(("status", "code"), [("Failed", StatusCode.ERROR), ("Terminated", StatusCode.UNSET)])
def test_only_a_failed_instance_is_an_error(spans: Spans, recorder: Recorder, status: str, code: StatusCode) -> None:
    durable = DurableSpans(spans)
    durable.orchestration("O", "i", CALLER)
    durable.end_orchestration("i", status)
    assert recorder.named("orchestration:O").status.status_code is code


def test_nothing_asked_for_is_nothing_sent_and_nothing_for_the_worker() -> None:
    for settings in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}):
        assert spans_from_settings(settings).begin("one", SpanKind.SERVER, CALLER, {}).context is CALLER
        assert worker_settings(settings) == {}


def test_spans_reach_the_collector_with_the_headers_of_the_settings() -> None:
    with OtlpCollector() as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{collector.url}/",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=one",
        }
        spans = spans_from_settings(settings)
        spans.begin("one", SpanKind.SERVER, CALLER, {}).end()
        spans.close()
    assert [(span.name, span.service, span.trace_id) for span in collector.spans] == [("one", "sandbox-host", TRACE)]
    assert [sent.get("api-key") for sent in collector.headers] == ["one"]
    assert worker_settings(settings) == {"PYTHON_ENABLE_OPENTELEMETRY": "true"}


def test_closing_spans_that_go_nowhere_is_nothing() -> None:
    spans = Spans()
    spans.close()
    assert spans.begin("one", SpanKind.SERVER, CALLER, {}).context is CALLER


def test_another_protocol_is_refused_at_the_start() -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(StartError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"):
        spans_from_settings(settings)


def test_a_package_that_is_missing_is_named_at_the_start() -> None:
    program = """
import sys
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
from sandbox.host.errors import StartError
from sandbox.host.spans import spans_from_settings
try:
    spans_from_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
except StartError as error:
    print(error)
"""
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    package = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    assert done.stdout == f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {package} is not installed\n"


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as running:
        yield running


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, collector: OtlpCollector) -> Iterator[HostProcess]:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with running_host(APPS / "durable", tmp_path_factory.mktemp("host"), settings) as host:
        yield host


def test_a_sub_orchestration_hangs_below_the_one_that_waits_for_it(host: HostProcess, collector: OtlpCollector) -> None:
    assert host.run("traced")["runtimeStatus"] == "Completed"
    until(lambda: collector.named("orchestration:traced"), "the orchestration's span")

    [child], [parent] = collector.named("orchestration:traced_child"), collector.named("orchestration:traced")
    [creation] = collector.named("create_orchestration:traced")
    assert (creation.kind, creation.parent_id) == ("producer", "")
    assert (parent.parent_id, child.parent_id) == (creation.span_id, parent.span_id)
    assert creation.attributes[INSTANCE_ID] == parent.attributes[INSTANCE_ID]
    scheduled = [span for span in collector.named("activity:trace_parent") if span.kind == "client"]
    assert {span.parent_id for span in scheduled} == {parent.span_id, child.span_id}


def test_an_activity_that_raises_fails_its_spans_and_not_the_orchestration_that_catches_it(
    host: HostProcess, collector: OtlpCollector
) -> None:
    assert host.run("calls_failing_activity", "x")["runtimeStatus"] == "Completed"
    until(lambda: collector.named("orchestration:calls_failing_activity"), "the orchestration's span")

    [orchestration] = collector.named("orchestration:calls_failing_activity")
    assert not orchestration.has_failed
    assert {span.kind for span in collector.named("activity:fail") if span.has_failed} == {"client", "server"}


def test_a_start_that_is_refused_and_an_instance_that_is_terminated_are_told(
    host: HostProcess, collector: OtlpCollector
) -> None:
    host.start("events", 1, instance_id="one")
    until(lambda: host.status("one")["runtimeStatus"] == "Running", "the instance")
    url = "/runtime/webhooks/durabletask/orchestrators/events/one"
    assert host.http.post(url).status_code == 409
    assert host.change("one", "terminate", reason="enough") == 202
    until(lambda: collector.named("orchestration:events"), "the orchestration's span")
    until(lambda: len(collector.named("create_orchestration:events")) == 2, "both starts")

    [orchestration] = collector.named("orchestration:events")
    assert (orchestration.attributes["durabletask.task.status"], orchestration.has_failed) == ("Terminated", False)
    assert sorted(span.has_failed for span in collector.named("create_orchestration:events")) == [False, True]
