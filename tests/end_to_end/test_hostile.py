"""The hostile corpus against the app: requests, answers of partners and of token endpoints, and settings."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.hostile import partner as record_types
from tests.hostile.corpus import HERE, Case, cases
from tests.hostile.relay import HostileRelay, app_folder, partner_settings
from tests.hostile.servers import HostilePartner

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
