"""The hostile corpus against the app: requests, answers of partners and of token endpoints, and settings."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.hostile import partner as record_types
from tests.hostile.corpus import HERE, Case, cases
from tests.hostile.relay import WEBHOOKS, HostileRelay, app_folder, partner_settings
from tests.hostile.servers import Gate, HostilePartner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

RECORDS = (HERE / "partner.py").read_text()
NAMES = [resource.partner.name for resource in record_types.RESOURCES]
AT_A_TIME = 16


def test_the_corpus_has_at_least_400_inputs() -> None:
    counts = [len(cases(name)) for name in ("requests", "partner_answers", "token_answers", "settings")]

    assert sum(counts) >= 400
    assert min(counts) >= 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return app_folder(tmp_path_factory.mktemp("hostile") / "app", RECORDS)


@pytest.fixture
async def partner() -> AsyncIterator[HostilePartner]:
    partner = HostilePartner()
    async with partner.server:
        yield partner


@pytest.fixture
async def relay(folder: Path, partner: HostilePartner) -> AsyncIterator[HostileRelay]:
    settings: dict[str, str] = {}
    for name in NAMES:
        settings |= partner_settings(name, partner.server.url)
    with await asyncio.to_thread(HostileRelay, folder, settings) as relay:
        yield relay


async def test_each_request_is_refused_or_delivered_once(relay: HostileRelay, partner: HostilePartner) -> None:
    turns = asyncio.Semaphore(AT_A_TIME)
    faults: list[str] = []
    accepted: dict[str, str] = {}

    async def send(case: Case) -> None:
        fields = case.fields
        async with turns:
            if "raw" in fields:
                answer = await relay.send(fields["raw"].encode())
            else:
                method, path = fields.get("method", "POST"), fields.get("path", "parcels")
                answer = await relay.ask(method, path, case.body(), fields.get("headers"))
        expected = fields["expect"] if isinstance(fields["expect"], list) else [fields["expect"]]
        is_right = answer.status in expected or ("raw" in fields and answer.status == 0)
        if is_right and answer.status >= 400 and "raw" not in fields and method != "HEAD":
            is_right = answer.headers.get("content-type") == "application/problem+json" or not answer.body
            is_right = is_right and (answer.status != 405 or bool(answer.headers.get("allow")))
        if not is_right:
            faults.append(f"{case.id} ({case.family}): {answer.status} {answer.body[:200]!r} {fields!s:.200}")
        if answer.status == 202:
            accepted[answer.json()["id"]] = case.id

    await asyncio.gather(*(send(case) for case in cases("requests")))

    assert faults == [], "\n".join(faults)
    assert set(await relay.instances()) == set(accepted)
    ended = await relay.finished(accepted)
    assert {accepted[id_]: each["state"] for id_, each in ended.items() if each["state"] != "delivered"} == {}
    assert sum(partner.stored.values()) == len({each["recordId"] for each in ended.values()})
    await relay.assert_is_well()


@pytest.mark.parametrize("form", ["records", "batches"])
async def test_each_answer_of_a_partner_leads_to_the_truth(
    relay: HostileRelay, partner: HostilePartner, form: str
) -> None:
    found = cases("partner_answers")
    families: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        families[case.family].append(case)
        partner.cases[case.id] = case
    deliveries: dict[str, list[Case]] = {}
    for number, family in enumerate(families.values()):
        route = f"lanes/{number % record_types.LANES}"
        records = [{"parcelId": case.id, "city": "Riga"} for case in family]
        if form == "batches":
            deliveries[await relay.deliver(f"{route}/batch", records)] = family
        else:
            started = await asyncio.gather(*(relay.deliver(route, record) for record in records))
            deliveries |= {id_: [case] for id_, case in zip(started, family, strict=True)}

    ended = await relay.finished(deliveries)

    faults = []
    for id_, family in deliveries.items():
        reported = _states(ended[id_], family)
        for case in family:
            ends, stored = case.fields.get("ends", "delivered"), partner.stored[case.id]
            if reported[case.id] != ends or stored != (ends == "delivered"):
                told = f"{reported[case.id]}, stored {stored}: {case.fields!s:.200} {ended[id_]!s:.900}"
                faults.append(f"{case.id} ({case.family}): {told}")
    assert faults == [], "\n".join(faults)
    await relay.assert_is_well()


@pytest.mark.parametrize("route", ["drawers", "keyed/parcels", "v1/entries"])
async def test_each_answer_to_a_post_leads_to_the_truth_whatever_the_shape_of_the_partner(
    relay: HostileRelay, partner: HostilePartner, route: str
) -> None:
    found = [case for case in cases("partner_answers") if case.fields.get("to") != "look-up"]
    is_entry = route == "v1/entries"
    ids = {str(number) if is_entry else case.id: case for number, case in enumerate(found)}
    partner.cases = dict(ids)
    records = [{"entry_no": int(id_), "text": "x"} if is_entry else {"parcelId": id_, "city": "x"} for id_ in ids]

    delivery = await relay.deliver(f"{route}/batch", records)
    ended = (await relay.finished([delivery]))[delivery]

    undelivered = {each["recordId"]: each["state"] for each in ended["rejections"]}
    faults = [
        f"{case.id}: {undelivered.get(id_)}, stored {partner.stored[id_]}: {case.fields!s:.200}"
        for id_, case in ids.items()
        if (ends := case.fields.get("ends", "delivered")) != undelivered.get(id_, "delivered")
        or partner.stored[id_] != (ends == "delivered")
    ]
    assert faults == [], "\n".join(faults)
    await relay.assert_is_well()


def _states(delivery: dict[str, Any], family: list[Case]) -> dict[str, str]:
    if "total" not in delivery:
        return {family[0].id: delivery["state"]}
    undelivered = {each["recordId"]: each["state"] for each in delivery.get("rejections", [])}
    return {case.id: undelivered.get(case.id, "delivered") for case in family}


async def test_after_each_answer_of_a_token_endpoint_the_record_is_delivered(
    relay: HostileRelay, partner: HostilePartner
) -> None:
    lanes: list[list[Case]] = [[] for _ in range(record_types.LANES)]
    for number, case in enumerate(cases("token_answers")):
        lanes[number % len(lanes)].append(case)
    faults: list[str] = []

    async def work(lane: int) -> None:
        name = f"TOKEN_{lane}"
        for case in lanes[lane]:
            partner.token_cases[name].append(case)
            before = partner.token_requests[name]
            id_ = await relay.deliver(f"tokens/{lane}", {"parcelId": case.id, "city": "Riga"})
            ended = (await relay.finished([id_]))[id_]
            asked = partner.token_requests[name] - before
            is_right = ended["state"] == "delivered" and partner.stored[case.id] == 1
            if not is_right or partner.token_cases[name] or (asked == 1) != case.fields.get("gives", False):
                faults.append(f"{case.id} ({case.family}): {asked} requests, {case.fields!s:.200} {ended!s:.600}")
            # The partner knows none of these tokens any more.
            partner.revoked |= {f"hostile-access-token-{name}-{number}" for number in range(1, before + asked + 1)}

    await asyncio.gather(*map(work, range(len(lanes))))

    assert faults == [], "\n".join(faults)
    await relay.assert_is_well()


async def test_thirty_batches_of_the_worst_json_stay_small(relay: HostileRelay, partner: HostilePartner) -> None:
    async def hand_in(batch: int) -> str:
        records = [{"parcelId": f"m-{batch}-{number}", "city": "x", "m": [{}] * 320} for number in range(1000)]
        body = json.dumps(records, separators=(",", ":")).encode()
        assert 950_000 < len(body) <= 1024 * 1024
        while True:
            answer = await relay.ask("POST", "drawers/batch", body)
            if answer.status == 202:
                return str(answer.json()["id"])
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            await asyncio.sleep(1)

    ids = await asyncio.gather(*map(hand_in, range(30)))
    async with asyncio.timeout(200):
        while sum(partner.stored.values()) < 2_000:  # noqa: ASYNC110, another process is watched
            await asyncio.sleep(0.5)
    for id_ in ids:
        assert (await relay.ask("POST", f"deliveries/{id_}/cancel")).status == 202
    ended = await relay.finished(ids)

    assert {each["state"] for each in ended.values()} == {"cancelled"}
    assert set(partner.stored.values()) == {1}
    await relay.assert_is_well()


async def test_a_hundred_answers_of_a_megabyte_at_once_stay_small(relay: HostileRelay, partner: HostilePartner) -> None:
    flood = {"to": "look-up", "before": "[", "unit": '{"a":{}},', "times": 115_000, "after": "0]"}
    ids = [f"flood-{number}" for number in range(100)]
    partner.cases = {id_: Case(id_, "a flood", flood) for id_ in ids}

    delivery = await relay.deliver("parcels/batch", [{"parcelId": id_, "city": "x"} for id_ in ids])

    assert (await relay.finished([delivery]))[delivery]["state"] == "delivered"
    assert [partner.stored[id_] for id_ in ids] == [1] * 100
    await relay.assert_is_well()


async def test_whoever_cancels_purges_and_asks_again_during_a_post_stores_once(
    relay: HostileRelay, partner: HostilePartner
) -> None:
    gates = {id_: Gate() for id_ in ("redelivered", "purged", "restarted", "in-a-batch")}
    partner.gates = dict(gates)
    records = {id_: {"parcelId": id_, "city": "x"} for id_ in gates}
    keys = {"Idempotency-Key": "purged"}
    one = await relay.deliver("lanes/0", records["redelivered"])
    keyed = await relay.deliver("lanes/1", records["purged"], keys)
    other = await relay.deliver("lanes/2", records["restarted"])
    batch = await relay.deliver("lanes/3/batch", [records["in-a-batch"], {"parcelId": "beside", "city": "x"}])
    await asyncio.gather(*(gate.arrived.wait() for gate in gates.values()))

    for id_ in (one, keyed, batch):
        assert (await relay.ask("POST", f"deliveries/{id_}/cancel")).status == 202
    await relay.finished([one, keyed, batch])
    await relay.host("DELETE", f"{WEBHOOKS}/instances/{keyed}")
    again = await asyncio.gather(
        *(relay.ask("POST", f"deliveries/{id_}/redeliver") for id_ in (one, batch) * 3),
        *(relay.ask("POST", "lanes/1", json.dumps(records["purged"]).encode(), keys) for _ in range(3)),
    )
    answers = {answer.json()["id"] for answer in again}
    for gate in gates.values():
        gate.opened.set()
    await relay.finished([*answers, other])

    assert {answer.status for answer in again} == {202}
    assert answers == {f"{one}-redelivery-1", f"{batch}-redelivery-1", keyed}
    ended = await relay.finished([*answers, other])
    assert {each["state"] for each in ended.values()} == {"delivered"}
    assert [partner.stored[id_] for id_ in (*gates, "beside")] == [1] * 5
    await relay.assert_is_well()


SETTING_APP = """
from shared.partner_types import Parcel
from shared.resource import Partner, Put, Resource

RESOURCES = [
    Resource(Parcel, name=f"Parcel{number}", route=f"parcels/{number}", id="parcel_id", partner=Partner(f"SET{number}"),
             post=Put("/parcels/{id}"))
    for number in range(NUMBER)
]
"""


def _settings(case: Case, number: int) -> dict[str, str]:
    """Return the settings of one partner; in `case` one of them is wrong."""
    right = {
        "URL": "http://127.0.0.1:9",
        "TOKEN_URL": "http://127.0.0.1:9/token",
        "CLIENT_ID": "hostile-client",
        "CLIENT_SECRET": "a-secret-that-is-right",
    }
    wrong = {case.fields["key"]: case.fields.get("value", case.fields["text"])}
    return {f"SET{number}_{key}": value for key, value in (right | wrong).items()}


async def test_each_setting_that_is_wrong_is_named_without_its_value_and_starts_nothing(tmp_path: Path) -> None:
    found = [case for case in cases("settings") if not case.fields.get("is_fine")]
    folder = app_folder(tmp_path / "app", SETTING_APP.replace("NUMBER", str(len(found))))
    (folder / "shared" / "partner_types.py").write_text(RECORDS.partition("\ndef _parcels")[0])
    environ: dict[str, str] = {}
    for number, case in enumerate(found):
        environ |= _settings(case, number)
    environ["SSL_CERT_FILE"] = str(tmp_path / "nothing.pem")

    with await asyncio.to_thread(HostileRelay, folder, environ) as relay:
        record = b'{"parcelId": "x", "city": "x"}'
        posts = (relay.ask("POST", f"parcels/{number}", record) for number in range(0, len(found), 9))
        answers = await asyncio.gather(*posts, relay.ask("GET", "health"))
        assert {answer.status for answer in answers} == {503}
        problems = [error["detail"] for error in answers[0].json()["errors"]]
        unnamed = [
            (case.id, case.fields["key"], case.fields["text"])
            for number, case in enumerate(found)
            if not any(f"SET{number}_{case.fields['key']}" in problem for problem in problems)
        ]
        assert unnamed == []
        assert any("SSL_CERT_FILE" in problem for problem in problems)
        assert "Sup3rS3cret" not in "".join(answer.body.decode() for answer in answers)
        assert await relay.instances() == {}
        await relay.assert_is_well(but="Sup3rS3cret")


async def test_secrets_of_any_kind_are_settings(tmp_path: Path) -> None:
    found = [case for case in cases("settings") if case.fields.get("is_fine")]
    folder = app_folder(tmp_path / "app", SETTING_APP.replace("NUMBER", str(len(found))))
    (folder / "shared" / "partner_types.py").write_text(RECORDS.partition("\ndef _parcels")[0])
    environ: dict[str, str] = {}
    for number, case in enumerate(found):
        environ |= _settings(case, number)

    with await asyncio.to_thread(HostileRelay, folder, environ) as relay:
        assert (await relay.ask("GET", "health")).status == 200
        await relay.assert_is_well()


POISON_APP = """
import os
import signal

from shared.partner_types import Parcel
from shared.resource import Partner, Put, Resource


def judge(response):
    # What a record does that makes the worker run out of memory.
    if b"poison" in response.body:
        os.kill(os.getpid(), signal.SIGKILL)


RESOURCES = [
    Resource(Parcel, route="parcels", id="parcel_id", partner=Partner("LANE"), post=Put("/parcels/{id}"), judge=judge)
]
"""


async def test_a_record_that_ends_the_worker_takes_no_other_along(tmp_path: Path, partner: HostilePartner) -> None:
    folder = app_folder(tmp_path / "app", POISON_APP)
    (folder / "shared" / "partner_types.py").write_text(RECORDS.partition("\ndef _parcels")[0])
    ids = [f"beside-{number}" for number in range(60)]
    ids[31] = "the-poison"
    partner.always["the-poison"] = Case("the-poison", "poison", {"status": "201 Created", "body": "poison"})
    settings = partner_settings("LANE", partner.server.url)
    settings |= {"DELIVERY_DEADLINE": "75", "DELIVERY_RETRY_MAX": "20", "DELIVERY_CHUNK": "20"}
    # An orchestration whose turn it is fails with the worker, and is started again.
    settings["DELIVERY_RECOVERY_SCHEDULE"] = "*/3 * * * * *"

    with await asyncio.to_thread(HostileRelay, folder, settings) as relay:
        delivery = await relay.deliver("parcels/batch", [{"parcelId": id_, "city": "x"} for id_ in ids])
        ended = (await relay.finished([delivery], 300, {"Completed"}))[delivery]
        restarts = (await relay.worker())["restarts"]

    assert restarts > 0
    assert (ended["state"], ended["created"], ended["expired"]) == ("partly", 59, 1), ended
    assert [(each["recordId"], each["uncertain"]) for each in ended["rejections"]] == [("the-poison", True)]
    assert [partner.stored[id_] for id_ in ids if id_ != "the-poison"] == [1] * 59
