"""Which faults hit: probabilities, counts, windows and patterns, all repeatable."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from sandbox.partner.fault_plan import FaultPlan
from sandbox.partner.faults import Drop, Status
from tests.partner_client import Clock, running_partner

if TYPE_CHECKING:
    from sandbox.partner.faults import AnyFault, Route

IDS = [f"b-{number}" for number in range(1_000)]


def plan_of(*faults: AnyFault, seed: int = 7, clock: Clock | None = None) -> FaultPlan:
    return FaultPlan(faults, seed=seed, clock=clock or Clock())


def hit(plan: FaultPlan, external_id: str | None = None, route: Route = "post") -> bool:
    return any(True for _ in plan.hitting(route, "before", external_id))


def hits(plan: FaultPlan, ids: list[str]) -> set[str]:
    return {external_id for external_id in ids if hit(plan, external_id)}


def test_hits_about_as_many_as_its_probability_says() -> None:
    assert 250 < len(hits(plan_of(Drop(route="post", probability=0.3)), IDS)) < 350


def test_hits_the_same_requests_whatever_their_order() -> None:
    fault = Drop(route="post", probability=0.3)
    shuffled = random.Random(1).sample(IDS, len(IDS))  # noqa: S311 - an order, not a secret

    assert hits(plan_of(fault), IDS) == hits(plan_of(fault), shuffled)


def test_hits_others_with_another_seed_or_in_another_place() -> None:
    fault = Drop(route="post", probability=0.3)
    never = Drop(route="post", probability=0.0)

    assert hits(plan_of(fault, seed=7), IDS) != hits(plan_of(fault, seed=8), IDS)
    assert hits(plan_of(fault), IDS) != hits(plan_of(never, fault), IDS)


def test_draws_anew_for_each_request_about_the_same_record() -> None:
    plan = plan_of(Drop(route="post", probability=0.5))

    assert {hit(plan, "b-1") for _ in range(50)} == {True, False}


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 1_000)])
def test_certain_faults_are_certain(probability: float, expected: int) -> None:
    assert len(hits(plan_of(Drop(route="post", probability=probability)), IDS)) == expected


def test_gives_a_number_from_0_to_1_for_the_faults_use() -> None:
    plan = plan_of(Drop(route="post"))
    numbers = [number for external_id in IDS for _, number in plan.hitting("post", "before", external_id)]

    assert len(set(numbers)) == len(IDS)
    assert min(numbers) >= 0
    assert max(numbers) < 1
    assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.05)


def test_skips_and_then_hits_so_many_times() -> None:
    plan = plan_of(Drop(route="post", skip=2, times=3))

    assert [hit(plan) for _ in range(7)] == [False, False, True, True, True, False, False]


def test_hits_only_within_its_window_from_when_it_was_set() -> None:
    clock = Clock()
    plan = plan_of(clock=clock)
    clock.advance(100)
    plan.add([Drop(route="post", window=(1, 2))])

    expected = [(0.0, False), (0.9, False), (0.1, True), (0.9, True), (0.1, False)]
    for seconds, hits_now in expected:
        clock.advance(seconds)
        assert hit(plan) is hits_now


def test_hits_only_external_ids_of_its_pattern() -> None:
    plan = plan_of(Drop(route="api", record="b-[12]?"))

    assert hits(plan, IDS) == {f"b-{number}" for number in range(10, 30)}
    assert not hit(plan, None)
    assert not hit(plan, "B-11")


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("post", {"post"}),
        ("get", {"get"}),
        ("token", {"token"}),
        ("discovery", {"discovery"}),
        ("api", {"post", "get"}),
        ("any", {"post", "get", "token", "discovery"}),
    ],
)
def test_hits_only_its_routes(named: Route, meant: set[str]) -> None:
    plan = plan_of(Drop(route=named))
    routes: list[Route] = ["post", "get", "token", "discovery"]

    assert {route for route in routes if hit(plan, route=route)} == meant


async def test_a_record_that_makes_no_sense_matches_no_pattern() -> None:
    fault = Status(route="post", status=503, record="*")
    async with running_partner(faults=(fault,)) as partner:
        await partner.token()
        contents = [b"{", b"[]", b'{"parcelId": 7}', b'{"parcelId": "b"}']
        headers = {"Content-Type": "application/json"}
        responses = [await partner.http.post("/parcels", content=content, headers=headers) for content in contents]

    assert [response.status_code for response in responses] == [400, 422, 422, 503]


def test_hits_only_at_its_stage() -> None:
    plan = plan_of(Drop(route="post", stage="after"))

    assert not hit(plan)
    assert list(plan.hitting("post", "after", None))


def test_a_fault_that_was_not_reached_has_not_fired() -> None:
    plan = plan_of(Drop(route="post"), Status(route="post", status=500, times=1))

    next(plan.hitting("post", "before", None))

    assert [fault["fired"] for fault in plan.to_json()] == [1, 0]


def test_is_empty_until_a_fault_is_set() -> None:
    plan = plan_of()
    assert not plan

    plan.add([Drop(route="post")])
    plan.add([Status(route="post", status=500)])
    assert plan
    assert [fault["fault"] for fault in plan.to_json()] == ["drop", "status"]

    plan.replace([])
    assert not plan
