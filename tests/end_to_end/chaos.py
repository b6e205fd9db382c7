"""A seeded schedule of everything that can go wrong, those who send records meanwhile, and the reports' checker."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.end_to_end.stage import RESOURCE, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from tests.end_to_end.stage import Json, Stage

HTML = {"content_type": "text/html", "body": "<html><title>Proxy</title></html>"}
# One of them is in force at a time, with the others' share of requests left alone.
FAULTS: tuple[Json, ...] = (
    {"fault": "latency", "route": "api", "seconds": [0.0, 0.5]},
    {"fault": "limit", "rate": 40},
    {"fault": "concurrency", "most": 5, "retry_after": 1},
    {"fault": "status", "route": "api", "status": 429, "retry_after": 1, "probability": 0.1},
    {"fault": "status", "route": "post", "status": 500, "probability": 0.3},
    {"fault": "status", "route": "post", "stage": "after", "status": 502, "probability": 0.3},
    {"fault": "status", "route": "post", "stage": "after", "status": 302, "probability": 0.3},
    {"fault": "status", "route": "api", "status": 503, "probability": 0.2},
    {"fault": "status", "route": "api", "status": 403, **HTML, "probability": 0.2},
    {"fault": "status", "route": "post", "status": 423, "probability": 0.2},
    {"fault": "drop", "route": "api", "probability": 0.3},
    {"fault": "drop", "route": "post", "stage": "after", "probability": 0.5},
    {"fault": "drop", "route": "post", "stage": "after", "how": "close", "probability": 0.5},
    {"fault": "garble", "route": "api", "kind": "half", "probability": 0.3},
    {"fault": "garble", "route": "api", "kind": "cut", "probability": 0.3},
    {"fault": "garble", "route": "post", "kind": "html", "probability": 0.3},
    {"fault": "alter", "route": "post", "put": {RESOURCE.id_member: "another"}, "probability": 0.2},
    {"fault": "duplicate", "route": "post", "probability": 0.3},
    # A post that outlasts the timeout is still in progress when it is tried again.
    {"fault": "latency", "route": "post", "seconds": 6.0, "probability": 0.05},
    {"fault": "revoke", "route": "api", "probability": 0.05},
    {"fault": "challenge", "route": "api", "status": 403},
    {"fault": "challenge", "route": "api", "error": "expired_token"},
    {"fault": "cached", "route": "token", "times": 1},
    {"fault": "latency", "route": "token", "seconds": 1.5},
    {"fault": "status", "route": "token", "status": 503},
    {"fault": "status", "route": "token", "status": 400, "body": {"error": "too_many_requests"}},
    {"fault": "status", "route": "token", "status": 401, "body": {"error": "invalid_client"}},
    {"fault": "drop", "route": "token"},
    {"fault": "garble", "route": "token", "kind": "html"},
    {"fault": "alter", "route": "token", "omit": ["access_token"]},
    {"fault": "alter", "route": "token", "put": {"expires_in": "soon"}},
)
# In force throughout: what a partner is like.
NATURE: tuple[Json, ...] = (
    {"fault": "late", "route": "get", "seconds": 0.7, "probability": 0.5},
    {"fault": "normalise", "route": "api", "probability": 0.5},
    # An odd answer to a look-up now and then.
    *({"fault": "status", "route": "get", "status": status, "probability": 0.01} for status in (400, 403, 302)),
    {"fault": "status", "route": "get", "status": 404, **HTML, "probability": 0.01},
)


# Hundreds wait at the same time, and for hosts that start.
PATIENCE, PAUSE = 300.0, 3.0
# What is killed, in turn.
KINDS = ("worker", "host", "both")


@dataclass(frozen=True)
class Rage:
    """One fault after the other within so many `seconds`, and the `kills`, in an order of `seed`.

    A host that is killed is started again, which takes some seconds more.
    """

    seconds: float
    kills: Sequence[str]
    seed: int
    always: Sequence[Mapping[str, Any]] = ()

    async def __call__(self, stage: Stage) -> None:
        chance = random.Random(self.seed)  # noqa: S311, it is to be repeatable
        faults = [*FAULTS]
        chance.shuffle(faults)
        pause = self.seconds / len(faults) / 2
        steps = chance.sample(range(len(faults)), len(self.kills))
        deaths = dict(zip(steps, self.kills, strict=True))
        for step, fault in enumerate(faults):
            await stage.set_faults(*self.always, fault)
            if fault.get("route") == "token" or fault["fault"] == "challenge":
                # A token endpoint in trouble is felt by those who need a token.
                await stage.control("POST", "revoke")
            # The schedule's own pace: nothing is waited for here.
            await asyncio.sleep(pause)
            if deaths.get(step) == "worker":
                await stage.kill_worker()
            elif step in deaths:
                await stage.kill_host(with_worker=deaths[step] == "both")
            await asyncio.sleep(pause)
            if step % 5 == 4:
                await recover(stage)
        await stage.set_faults(*self.always)


async def recover(stage: Stage) -> None:
    """Have the timer run that takes care of what the platform gave up on."""
    with contextlib.suppress(httpx.TransportError):
        await stage.http.post(f"{stage.host.url}/admin/functions/RecoverDeliveries", json={"input": ""})


def while_up(look: Callable[[], Awaitable[Json | None]]) -> Callable[[], Awaitable[Json | None]]:
    """Look at what the host shows; it shows nothing while it is dead."""

    async def look_if_up() -> Json | None:
        try:
            return await look()
        except httpx.TransportError:
            return None

    return look_if_up


async def deliver(stage: Stage, body: object, key: str, at: float) -> Json:
    """Send a body at this time of the loop, and again until it is accepted; return the finished delivery."""
    await asyncio.sleep(at - asyncio.get_running_loop().time())

    async def accepted() -> Json | None:
        response = await stage.send(body, key=key)
        # Without a body it is the host's own answer: the worker process was killed while it handled the request.
        assert response.status_code in {202, 503} or not response.content, response.text
        return response.json() if response.status_code == 202 else None

    links = await until(while_up(accepted), PATIENCE, PAUSE)

    async def ended() -> Json | None:
        response = await stage.ask("GET", links["statusQueryGetUri"])
        assert response.status_code != 404, f"{links['id']} was accepted, and is gone"
        if response.status_code == 200 and response.json()["state"] == "failed":
            await recover(stage)
        elif response.status_code == 200:
            return dict(response.json())
        return None

    async def recorded() -> Json | None:
        response = await stage.ask("GET", f"{links['statusQueryGetUri']}?records=true")
        return {"records": response.json()["records"]} if response.status_code == 200 else None

    delivery = await until(while_up(ended), PATIENCE, PAUSE)
    return delivery | await until(while_up(recorded), PATIENCE, PAUSE) if "total" in delivery else delivery


async def deliver_all(stage: Stage, bodies: Sequence[Json], *, batch: int, seconds: float, seed: int) -> list[Json]:
    """Send two thirds of the records as batches, the others singly, at random times; return the finished deliveries."""
    chance, now = random.Random(seed), asyncio.get_running_loop().time()  # noqa: S311, it is to be repeatable
    split = len(bodies) * 2 // 3 // batch * batch
    parts: list[object] = [list(bodies[start : start + batch]) for start in range(0, split, batch)]
    parts += bodies[split:]
    return await asyncio.gather(
        *(deliver(stage, part, f"part-{number}", now + seconds * chance.random()) for number, part in enumerate(parts))
    )


@dataclass
class Report:
    """What was reported of each record, held against what the partner has stored."""

    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    misreported: list[str] = field(default_factory=list)
    delivered: int = 0
    rejected: dict[str, str] = field(default_factory=dict)


def check(deliveries: Iterable[Json], sent: Iterable[str], stored: Mapping[str, int]) -> Report:
    """Compare every report with the partner's store; `sent` are the ids of all records."""
    report = Report(doubled=[id_ for id_, count in stored.items() if count > 1])
    told: dict[str, Json] = {}
    for delivery in deliveries:
        for each in delivery.get("records", [delivery]):
            told[each["recordId"]] = each
    for id_ in sent:
        state = told.get(id_, {}).get("state")
        is_delivered = state in {"delivered", "created", "exists"}
        report.delivered += is_delivered
        if is_delivered and not stored.get(id_):
            report.lost.append(id_)
        elif state == "rejected":
            report.rejected[id_] = told[id_].get("reason", "")
        if (state == "rejected" and stored.get(id_)) or not (is_delivered or state == "rejected"):
            report.misreported.append(f"{id_}: {state}, stored {stored.get(id_, 0)} times")
    return report
