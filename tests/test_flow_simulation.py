"""The limiter against a model of a partner, in virtual time: what docs/flow.md promises, each with its figure."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from shared.client.admission import Admission
from shared.rules.flow import CallResult, Flow
from tests.fakes.deliveries import Deliveries
from tests.fakes.partner_model import PartnerModel
from tests.fakes.virtual_time import in_virtual_time

# Measuring coverage would make a simulation take more than twice as long: test_flow and test_admission cover the code.
pytestmark = pytest.mark.unmeasured

# Other random numbers and larger figures, to see that a claim does not rest on one run.
MORE = pytest.mark.long
SEEDS = [1, pytest.param(2, marks=MORE)]


def partner(seed: int, **settings: Any) -> PartnerModel:  # noqa: ANN401, the settings of the model
    return PartnerModel(random.Random(seed), **settings)  # noqa: S311, a seeded run


def process(model: PartnerModel, rate: float | None = None) -> Deliveries:
    """One process that delivers to the partner, at this rate at most."""
    return Deliveries(Admission(Flow(rate=rate), asyncio.get_running_loop().time, model.random.random), model)


def now() -> float:
    return asyncio.get_running_loop().time()


async def stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("rate", "records", "settings", "most_refused"),
    [
        (50, 1_000, {}, 0.03),
        (50, 1_000, {"latency": 0.2}, 0.03),
        (50, 1_000, {"retry_after": None}, 0.03),
        pytest.param(500, 5_000, {}, 0.03, marks=MORE),
        (50, 1_000, {"quota_headers": True}, 0.01),
        pytest.param(500, 5_000, {"quota_headers": True}, 0.01, marks=MORE),
    ],
)
@in_virtual_time
async def test_settles_at_a_rate_limit(
    rate: float, records: int, settings: dict[str, Any], most_refused: float, seed: int
) -> None:
    model = partner(seed, rate=rate, burst=rate, **settings)
    await process(model).batch("batch", records)

    ideal = (2 * records - model.burst) / rate
    assert ideal / now() >= 0.92
    assert share(model.refused, model.calls) <= most_refused


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("rate", "settings"), [(20, {"window": 1.0}), pytest.param(50, {"window": 1.0}, marks=MORE), (5, {"burst": 5.0})]
)
@in_virtual_time
async def test_gets_most_of_a_rate_limit_that_counts_in_another_way(
    rate: float, settings: dict[str, Any], seed: int
) -> None:
    model = partner(seed, rate=rate, **settings)
    task = asyncio.create_task(process(model).batch("batch", 10_000))
    await asyncio.sleep(100)
    await stop(task)

    assert len(model.accepted_at) / (100 * rate) >= 0.9
    assert share(model.refused, model.calls) <= 0.1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("rate", "burst", "least"), [(0.5, 1.0, 0.65), (0.5, 3.0, 0.85), pytest.param(0.2, 2.0, 0.7, marks=MORE)]
)
@pytest.mark.parametrize("retry_after", [1.0, None])
@in_virtual_time
async def test_delivers_at_a_few_calls_a_minute(
    rate: float, burst: float, least: float, retry_after: float | None, seed: int
) -> None:
    model = partner(seed, rate=rate, burst=burst, retry_after=retry_after)
    deliveries = process(model)
    task = asyncio.create_task(deliveries.batch("batch", 1_000))
    await asyncio.sleep(1_200)
    await stop(task)

    assert 2 * len(deliveries.stored) / (1_200 * rate) >= least
    assert share(model.refused, model.calls) <= 0.25


@in_virtual_time
async def test_a_single_posts_after_its_look_up_however_low_the_rate_is_set() -> None:
    deliveries = process(partner(1), rate=0.1)
    await deliveries.singles([f"record-{at}" for at in range(10)])

    assert now() <= 1.2 * 20 / 0.1


@pytest.mark.parametrize(("fickle", "least"), [(0.01, 0.9), (0.05, 0.8)])
@in_virtual_time
async def test_is_not_slowed_down_by_a_partner_that_refuses_some_calls_whatever_their_number(
    fickle: float, least: float
) -> None:
    model = partner(1, fickle=fickle, latency=0.2)
    task = asyncio.create_task(process(model).batch("batch", 1_000_000))
    await asyncio.sleep(10)
    accepted = len(model.accepted_at)
    await asyncio.sleep(60)
    await stop(task)

    assert (len(model.accepted_at) - accepted) / 60 >= least * 64 / 0.2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("most", "records"), [(5, 500), pytest.param(50, 5_000, marks=MORE)])
@pytest.mark.parametrize(("settings", "least"), [({}, 0.85), ({"busy_status": 429}, 0.6)])
@in_virtual_time
async def test_settles_below_a_concurrency_limit(
    most: int, records: int, settings: dict[str, Any], least: float, seed: int
) -> None:
    model = partner(seed, most=most, latency=0.1, **settings)
    await process(model).batch("batch", records)

    # A call takes the partner 0.08 s on average, and as long again as a quarter of that on its way.
    assert 2 * records * 0.1 / most / now() >= least
    assert share(model.refused, model.calls) <= 0.03


@pytest.mark.parametrize(
    ("rate", "seed"), [(50.0, 1), pytest.param(100.0, 2, marks=MORE), pytest.param(500.0, 1, marks=MORE)]
)
@in_virtual_time
async def test_finds_a_limit_again_that_halves_and_then_doubles(rate: float, seed: int) -> None:
    model = partner(seed, rate=rate, burst=rate)
    task = asyncio.create_task(process(model).batch("batch", 1_000_000))
    await asyncio.sleep(30)
    model.rate = rate / 2
    await asyncio.sleep(10)
    refused, calls = model.refused, model.calls
    await asyncio.sleep(20)
    assert share(model.refused - refused, model.calls - calls) <= 0.03
    model.rate = rate
    await asyncio.sleep(10)
    accepted = len(model.accepted_at)
    await asyncio.sleep(20)
    await stop(task)

    assert (len(model.accepted_at) - accepted) / 20 >= 0.9 * rate


@pytest.mark.parametrize("seed", SEEDS)
@in_virtual_time
async def test_four_processes_share_one_limit(seed: int) -> None:
    model = partner(seed, rate=100.0, burst=100.0)
    processes = [process(model) for _ in range(4)]
    tasks = [asyncio.create_task(each.batch(str(at), 1_000_000)) for at, each in enumerate(processes)]
    await asyncio.sleep(60)
    await stop(*tasks)

    stored = [len(each.stored) for each in processes]
    assert len(model.accepted_at) / 6_100 >= 0.85
    assert share(model.refused, model.calls) <= 0.05
    assert min(stored) >= max(stored) / 2


POISON = [CallResult(0.0, 429, retry_after=1.0), CallResult(0.0, 503, retry_after=86_400.0), CallResult(0.0, 503)]


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("rate", [pytest.param(float("inf"), marks=MORE), 100.0])
@in_virtual_time
async def test_a_poisoned_record_costs_the_others_nothing(poison: CallResult, rate: float) -> None:
    times = []
    for poisoned in ({}, {"batch-250": poison}):
        model = partner(1, rate=rate, burst=100.0, poisoned=poisoned)
        deliveries, start = process(model), now()
        await deliveries.batch("batch", 500, deadline=start + 60)
        assert len(deliveries.stored) == 500 - len(poisoned)
        times.append(max(deliveries.stored.values()) - start)

    assert times[1] <= times[0] + 2


@pytest.mark.parametrize("retry_after", [pytest.param(None, marks=MORE), 120.0])
@in_virtual_time
async def test_ten_poisoned_records_cost_the_others_little(retry_after: float | None) -> None:
    times = []
    for poisoned in ({}, {f"batch-{at}": CallResult(0.0, 429, retry_after=retry_after) for at in range(50, 150, 10)}):
        model, start = partner(1, most=5, poisoned=poisoned), now()
        deliveries = process(model)
        await deliveries.batch("batch", 6_000, deadline=start + 200)
        assert len(deliveries.stored) == 6_000 - len(poisoned)
        times.append(sorted(deliveries.stored.values())[5_900] - start)

    # At most one pause of half a minute.
    assert times[1] <= times[0] + 40


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "script",
    [
        [429] * 15 + [503] * 15 + [422] * 10,
        pytest.param([503] * 15 + [429] * 15, marks=MORE),
        pytest.param([429] * 30, marks=MORE),
    ],
)
@pytest.mark.parametrize("pause", [0.0, 10.0])
@in_virtual_time
async def test_a_burst_of_refusals_is_over_in_seconds(script: list[int], pause: float, seed: int) -> None:
    model = partner(seed, retry_after=None)
    deliveries = process(model)
    await deliveries.single("before")
    await asyncio.sleep(pause)
    model.script = [*script]
    start = now()
    await deliveries.batch("batch", 1_000)

    assert max(deliveries.stored.values()) - start <= 10


@pytest.mark.parametrize("status", [pytest.param(429, marks=MORE), 503])
@in_virtual_time
async def test_a_partner_that_refuses_everything_is_not_hammered(status: int) -> None:
    model = partner(1, retry_after=None, script=[status] * 10_000)
    task = asyncio.create_task(process(model).singles([f"record-{at}" for at in range(200)]))
    await asyncio.sleep(60)
    in_a_minute = model.calls
    await asyncio.sleep(14 * 60)
    await stop(task)

    assert in_a_minute <= 60
    assert model.calls <= 150


@pytest.mark.parametrize("latency", [0.1, 2.0])
@in_virtual_time
async def test_a_single_record_passes_ten_batches(latency: float) -> None:
    deliveries = process(partner(1, latency=latency))
    await deliveries.single("alone")
    alone = now()
    batches = [asyncio.create_task(deliveries.batch(f"batch-{at}", 1_000)) for at in range(10)]
    for at in range(5):
        await asyncio.sleep(2.1 * latency)
        start = now()
        await deliveries.single(f"single-{at}")
        assert now() - start <= 3 * alone
    await stop(*batches)


@pytest.mark.parametrize("rate", [50.0, pytest.param(float("inf"), marks=MORE)])
@in_virtual_time
async def test_two_batches_keep_pace(rate: float) -> None:
    deliveries = process(partner(1, rate=rate, latency=0.2))
    batches = [asyncio.create_task(deliveries.batch(name, 100_000)) for name in "ab"]
    await asyncio.sleep(20)
    await stop(*batches)

    first, second = (sum(record.startswith(name) for record in deliveries.stored) for name in "ab")
    assert 0.8 <= first / second <= 1.25


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("silence", [None, 5.0])
@in_virtual_time
async def test_drains_within_seconds_after_an_outage(silence: float | None, seed: int) -> None:
    model = partner(seed, rate=200.0, burst=200.0, down_until=60.0, silence=silence)  # 100 deliveries/s
    deliveries = process(model)
    await deliveries.singles([f"record-{at}" for at in range(500)])

    assert max(deliveries.stored.values()) <= 68
    assert model.calls_while_down <= 28


@pytest.mark.parametrize("silence", [None, 10.0])
@in_virtual_time
async def test_probes_when_the_partner_goes_down_under_load(silence: float | None) -> None:
    model = partner(1, rate=50.0, burst=50.0, silence=silence)
    task = asyncio.create_task(process(model).batch("batch", 100_000))
    await asyncio.sleep(20)
    model.down_until = 80.0
    await asyncio.sleep(60)
    accepted = len(model.accepted_at)
    await asyncio.sleep(15)
    await stop(task)

    assert model.calls_while_down <= 30
    assert len(model.accepted_at) - accepted >= 500


@pytest.mark.parametrize("latency", [0.01, 2.0])
@in_virtual_time
async def test_does_not_slow_an_unlimited_partner_down(latency: float) -> None:
    model = partner(1, latency=latency)
    await process(model).batch("batch", 2_000)

    start_up = 6 * latency
    assert now() <= 1.05 * 4_000 * latency / 64 + start_up


async def rate_once_slow(
    model: PartnerModel, latency: float, *, after: float, settling: float, measured: float
) -> float:
    """Return the calls a second that a partner accepts for a time, once it has been slow for another."""
    task = asyncio.create_task(process(model).batch("batch", 100_000))
    await asyncio.sleep(after)
    model.latency = latency
    await asyncio.sleep(settling)
    accepted = len(model.accepted_at)
    await asyncio.sleep(measured)
    await stop(task)
    return (len(model.accepted_at) - accepted) / measured


@in_virtual_time
async def test_does_not_take_a_slow_partner_for_a_crowded_one() -> None:
    rate = await rate_once_slow(partner(1, latency=0.1), 2.0, after=10, settling=30, measured=60)

    assert rate >= 0.9 * 64 / 2.0


@in_virtual_time
async def test_sends_more_calls_at_a_time_when_the_partner_becomes_slow() -> None:
    rate = await rate_once_slow(partner(1, rate=100.0, burst=100.0), 3.0, after=20, settling=15, measured=30)

    assert rate >= 0.85 * 64 / 3.0


@in_virtual_time
async def test_leaves_a_partner_that_queues_its_calls_less_to_queue() -> None:
    model = partner(1, latency=0.1, servers=10)
    deliveries = process(model)
    task = asyncio.create_task(deliveries.batch("batch", 100_000))
    await asyncio.sleep(10)
    crowd = []
    for _ in range(30):
        await asyncio.sleep(1)
        crowd.append(deliveries.admission.snapshot()["in_flight"])
    await stop(task)

    assert sorted(crowd)[15] <= 50
    assert len(model.accepted_at) / 40 >= 0.95 * 10 / 0.08


@pytest.mark.parametrize("seed", SEEDS)
@in_virtual_time
async def test_singles_come_back_in_time_although_the_first_guess_of_a_rate_is_low(seed: int) -> None:
    model = partner(seed, rate=10.0, burst=10.0)
    await process(model).singles([f"record-{at}" for at in range(200)])

    assert now() <= 1.2 * 390 / 10


@pytest.mark.parametrize("count", [1_000, pytest.param(5_000, marks=MORE)])
@in_virtual_time
async def test_thousands_of_singles_are_served_in_time_and_a_late_one_is_not_behind_them(count: int) -> None:
    model = partner(1, rate=100.0, burst=100.0)
    deliveries = process(model)
    task = asyncio.create_task(deliveries.singles([f"record-{at}" for at in range(count)]))
    await asyncio.sleep(5)
    start = now()
    await deliveries.single("late")
    assert now() - start <= 3
    await task

    assert now() <= 1.1 * (2 * count - 100) / 100
    assert max(deliveries.sent_away.values()) <= 8
    assert sum(deliveries.sent_away.values()) <= 2 * count
