"""Which faults hit: probabilities, counts, windows and patterns, all repeatable."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from sandbox.partner.fault_plan import FaultPlan, Target
from sandbox.partner.faults import Challenge, Concurrency, Drop, Late, Limit, Status
from tests.partner_client import Clock, running_partner

if TYPE_CHECKING:
    from sandbox.partner.faults import AnyFault, Route

IDS = [f"b-{number}" for number in range(1_000)]


def plan_of(*faults: AnyFault, seed: int = 7, clock: Clock | None = None) -> FaultPlan:
    return FaultPlan(faults, seed=seed, clock=clock or Clock())


def target(record: str | None = None, route: Route = "post") -> Target:
    return Target(route, "CARRIER_API", "Parcel", record)


def hit(plan: FaultPlan, record: str | None = None, route: Route = "post") -> bool:
    return any(hit.fault for hit in plan.hitting("before", target(record, route)))


def hits(plan: FaultPlan, ids: list[str]) -> set[str]:
    return {record for record in ids if hit(plan, record)}


def test_hits_about_as_many_as_its_probability_says() -> None:
    assert 250 < len(hits(plan_of(Drop(route="post", probability=0.3)), IDS)) < 350


def test_hits_the_same_requests_whatever_their_order() -> None:
    fault = Drop(route="post", probability=0.3)
    shuffled = random.Random(1).sample(IDS, len(IDS))  # noqa: S311, an order, not a secret

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
    numbers = [hit.fraction for record in IDS for hit in plan.hitting("before", target(record))]

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


def test_hits_only_records_of_its_pattern() -> None:
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
        contents = [b"{", b"[]", b'{"parcelId": [7]}', b'{"parcelId": "b"}']
        headers = {"Content-Type": "application/json"}
        responses = [await partner.http.post("/parcels", content=content, headers=headers) for content in contents]

    assert [response.status_code for response in responses] == [400, 422, 422, 503]


def test_hits_only_at_its_stage() -> None:
    plan = plan_of(Drop(route="post", stage="after"))

    assert not hit(plan)
    assert list(plan.hitting("after", target()))


def test_a_fault_that_was_not_reached_has_not_fired() -> None:
    plan = plan_of(Drop(route="post"), Status(route="post", status=500, times=1))

    next(plan.hitting("before", target()))

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


def test_a_fault_may_mean_one_partner_or_resource() -> None:
    plan_faults = (Drop(route="any", partner="CRM_API"), Drop(route="post", resource="Order"))
    plan = plan_of(*plan_faults)

    assert [hit.fault for hit in plan.hitting("before", Target("token", "CRM_API"))] == [
        Drop(route="any", partner="CRM_API")
    ]
    assert [hit.fault for hit in plan.hitting("before", Target("post", "SHOP_API", "Order"))] == [
        Drop(route="post", resource="Order")
    ]
    assert not list(plan.hitting("before", target()))


def test_a_limit_refuses_what_is_above_its_rate_and_says_what_is_left() -> None:
    clock = Clock()
    plan = plan_of(Limit(rate=2, burst=4, headers="draft"), clock=clock)

    first = [next(plan.hitting("before", target())) for _ in range(6)]
    clock.advance(0.5)
    later = [next(plan.hitting("before", target())) for _ in range(2)]
    other_partner = next(plan.hitting("before", Target("post", "CRM_API")))

    assert [hit.fault is None for hit in (*first, *later, other_partner)] == [True] * 4 + [False] * 2 + [
        True,
        False,
        True,
    ]
    assert first[0].headers == (("ratelimit-policy", '"sandbox";q=4;w=2'), ("ratelimit", '"sandbox";r=3;t=1'))
    assert first[5].next_after == 0.5
    assert plan.to_json()[0]["fired"] == 3


def test_a_concurrency_limit_refuses_what_is_above_it() -> None:
    plan = plan_of(Concurrency(most=2))

    assert [len(list(plan.hitting("before", target(), in_flight))) for in_flight in (1, 2, 3)] == [0, 0, 1]


def test_a_quirk_counts_only_when_it_is_asked_for() -> None:
    plan = plan_of(Late(seconds=2, times=1), Challenge(status=403))

    assert list(plan.hitting("inside", Target("token", "CRM_API"))) == []
    assert plan.quirk(Late, target(route="get")) == Late(seconds=2, times=1)
    assert plan.quirk(Late, target(route="get")) is None
    assert [fault["fired"] for fault in plan.to_json()] == [1, 0]
