"""A seeded schedule of everything that can go wrong around a delivery, and those who hand records in meanwhile."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.end_to_end.stage import finished

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.end_to_end.stage import Stage

# One of them is in force at a time, with the others' share of requests left alone.
FAULTS: tuple[dict[str, Any], ...] = (
    {"fault": "latency", "route": "api", "seconds": [0.0, 0.5]},
    {"fault": "status", "route": "api", "status": 429, "retry_after": 1, "probability": 0.1},
    {"fault": "status", "route": "post", "status": 500, "probability": 0.3},
    {"fault": "status", "route": "post", "stage": "after", "status": 502, "probability": 0.3},
    {"fault": "status", "route": "api", "status": 503, "probability": 0.2},
    {"fault": "drop", "route": "api", "probability": 0.3},
    {"fault": "drop", "route": "post", "stage": "after", "probability": 0.5},
    {"fault": "drop", "route": "post", "stage": "after", "how": "close", "probability": 0.5},
    {"fault": "garble", "route": "api", "kind": "half", "probability": 0.3},
    {"fault": "garble", "route": "api", "kind": "cut", "probability": 0.3},
    {"fault": "garble", "route": "post", "kind": "html", "probability": 0.3},
    {"fault": "revoke", "route": "api", "probability": 0.05},
    {"fault": "latency", "route": "token", "seconds": 1.5},
    {"fault": "status", "route": "token", "status": 503},
    {"fault": "drop", "route": "token"},
    {"fault": "garble", "route": "token", "kind": "html"},
    {"fault": "alter", "route": "token", "omit": ["access_token"]},
    {"fault": "alter", "route": "token", "put": {"expires_in": "soon"}},
)


@dataclass(frozen=True)
class Rage:
    """`kills` of the worker process and one fault after the other within so many `seconds`, in an order of `seed`.

    `always` are faults that are in force throughout.
    """

    seconds: float
    kills: int
    seed: int
    always: Sequence[Mapping[str, Any]] = ()

    async def __call__(self, stage: Stage, http: httpx.AsyncClient) -> None:
        chance = random.Random(self.seed)  # noqa: S311, it is to be repeatable
        faults = [*FAULTS]
        chance.shuffle(faults)
        pause = self.seconds / len(faults) / 2
        deaths = set(chance.sample(range(len(faults)), self.kills))
        for step, fault in enumerate(faults):
            await stage.set_faults(http, *map(dict, self.always), fault)
            if fault["route"] == "token":
                # A token endpoint in trouble is felt by those who need a token.
                await http.post(f"{stage.partner.url}/sandbox/revoke")
            # The schedule's own pace: nothing is waited for here.
            await asyncio.sleep(pause)
            if step in deaths:
                await stage.kill_worker(http)
            await asyncio.sleep(pause)
        await stage.set_faults(http, *map(dict, self.always))


@dataclass(frozen=True)
class Delivery:
    """What is handed in: a body for a path, under an Idempotency-Key."""

    path: str
    body: object
    key: str


async def hand_in(stage: Stage, http: httpx.AsyncClient, delivery: Delivery, until: float) -> str:
    """Hand a delivery in, at a time before `until` (loop time) that its key gives, and again until it is accepted.

    Gives the URL of the delivery's status.
    """
    loop = asyncio.get_running_loop()
    await asyncio.sleep((until - loop.time()) * random.Random(delivery.key).random())  # noqa: S311, it is to be repeatable
    while True:
        try:
            headers = {"Idempotency-Key": delivery.key}
            response = await http.post(f"{stage.host.url}{delivery.path}", json=delivery.body, headers=headers)
        except httpx.TransportError:
            continue
        if response.status_code == 202:
            return str(response.json()["statusQueryGetUri"])
        # The worker process was killed while it handled the request: the key makes a second try safe.
        assert response.status_code in {502, 503}, response.text
        await asyncio.sleep(0.05)


async def deliver_all(
    stage: Stage, http: httpx.AsyncClient, records: Sequence[Mapping[str, Any]], *, batch: int, until: float
) -> list[dict[str, Any]]:
    """Hand in two thirds of the records as batches of `batch`, the others singly; give all final statuses."""
    split = len(records) * 2 // 3 // batch * batch
    deliveries = [
        Delivery("/api/businesses/batch", records[start : start + batch], f"batch-{start}")
        for start in range(0, split, batch)
    ]
    deliveries += [Delivery("/api/businesses", record, f"single-{record['externalId']}") for record in records[split:]]

    async def deliver(delivery: Delivery) -> dict[str, Any]:
        return await finished(http, await hand_in(stage, http, delivery, until), patience=300)

    return await asyncio.gather(*map(deliver, deliveries))
