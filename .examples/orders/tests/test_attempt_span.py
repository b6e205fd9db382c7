from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from sandbox.sample import business
from shared.delivery.activities import make_attempt
from shared.delivery.attempt import Attempt
from shared.delivery.partner_gate import FAILURES, PartnerGate
from shared.errors import SettingsError
from tests.fakes.recorder import Recorder
from tests.fakes.scripted_partner import ScriptedPartner, created, missing, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.api.business_api import BusinessApi
    from shared.delivery.outcome import Outcome

GIVEN = Attempt(business("b-1"), "instance", "key", 3)
FACTS = {"instance_id": "instance", "external_id": "b-1", "attempt": 3}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.shut_down()


async def attempt(recorder: Recorder, partner: ScriptedPartner, gate: PartnerGate | None = None) -> Outcome:
    return await make_attempt(GIVEN, partner.api, gate or PartnerGate(lambda: 0.0), recorder.telemetry)


def named(facts: dict[str, object]) -> dict[str, object]:
    return {f"business_relay.{name}": value for name, value in facts.items()}


async def test_an_attempt_is_one_span_that_says_which_and_how_it_went(recorder: Recorder) -> None:
    await attempt(recorder, ScriptedPartner(missing(), created()))

    [span] = recorder.spans
    assert (span.name, span.kind, span.status.status_code) == ("delivery attempt", SpanKind.INTERNAL, StatusCode.UNSET)
    assert dict(span.attributes or {}) == named(FACTS | {"outcome": "created", "status": 201})


async def test_the_words_of_the_partner_are_in_the_log_and_not_in_the_span(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    await attempt(recorder, ScriptedPartner(missing(), refused(422, "no such place: s3cret")))

    [span] = recorder.spans
    assert dict(span.attributes or {}) == named(FACTS | {"outcome": "rejected", "status": 422})
    assert "s3cret" not in span.to_json()
    assert "s3cret" in vars(caplog.records[0])["reason"]


async def test_the_line_of_an_attempt_belongs_to_its_span(recorder: Recorder) -> None:
    seen: list[int] = []

    class Watch(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            seen.append(get_current_span().get_span_context().span_id)

    logger, watch = logging.getLogger("shared.delivery.activities"), Watch()
    logger.addHandler(watch)
    try:
        await attempt(recorder, ScriptedPartner(missing(), refused(503)))
    finally:
        logger.removeHandler(watch)
    assert seen == [recorder.spans[0].context.span_id]


async def test_an_attempt_that_is_held_back_is_a_span_without_a_status(recorder: Recorder) -> None:
    gate = PartnerGate(lambda: 0.0)
    for _ in range(FAILURES):
        await attempt(recorder, ScriptedPartner(refused(503)), gate)

    await attempt(recorder, ScriptedPartner(), gate)

    assert dict(recorder.spans[-1].attributes or {}) == named(FACTS | {"outcome": "deferred"})


async def test_a_defect_marks_the_span_with_its_type(recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError):
        await attempt(recorder, ScriptedPartner(ZeroDivisionError("s3cret")))

    [span] = recorder.spans
    assert ((span.attributes or {})["error.type"], span.status.status_code) == ("ZeroDivisionError", StatusCode.ERROR)
    assert "s3cret" not in span.to_json()


async def test_settings_that_are_wrong_are_logged_before_there_is_a_span(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async def unusable() -> BusinessApi:
        raise SettingsError(["BUSINESS_API_URL is missing"])

    outcome = await make_attempt(GIVEN, unusable, PartnerGate(lambda: 0.0), recorder.telemetry)

    assert outcome.kind == "deferred"
    assert recorder.spans == ()
    logged = vars(caplog.records[0])
    assert {name: logged[name] for name in FACTS} == FACTS
    assert "BUSINESS_API_URL is missing" in logged["reason"]


async def test_the_span_is_the_api_clients_where_no_other_is_given(recorder: Recorder) -> None:
    partner = ScriptedPartner(missing(), created())
    api = await partner.api()
    api.telemetry = recorder.telemetry

    async def its() -> BusinessApi:
        return api

    await make_attempt(GIVEN, its, PartnerGate(lambda: 0.0))
    assert [span.name for span in recorder.spans] == ["delivery attempt"]


async def test_what_a_404_to_a_post_says_is_kept(recorder: Recorder) -> None:
    outcome = await attempt(recorder, ScriptedPartner(missing(), refused(404, "no such route: /v1/business/")))

    assert outcome.kind == "rejected"
    assert "no such route" in (outcome.reason or "")
