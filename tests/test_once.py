"""The promise of the app, against a partner that does its worst: one store, and a report that is true."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.durable.activities import BatchRecords, post_batch, post_one
from shared.durable.inputs import DeliveryOptions, batch_input, single_input
from shared.durable.orchestrators import deliver_batch, deliver_one
from shared.errors import ApiConnectError, ApiInterruptedError, TokenUnavailableError
from shared.rules.retry import RetryPolicy
from tests.fakes.durable_host import DurableHost
from tests.fakes.replay import Clock, play
from tests.fakes.scripted_partner import ScriptedPartner, answer, html
from tests.fakes.virtual_time import VirtualTimeLoop
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shared.resource import ApiResponse, Resource

SETTLE = 5.0
TERMS = DeliveryOptions(RetryPolicy(600, 1, 60), SETTLE, chunk=3, parallel=2, order=3)
HONOURING = replace(PARCEL, honours_idempotency_key=True)
BLIND = replace(PARCEL, look_up=None, honours_idempotency_key=True)

# What a call meets. Of "stored: …" the partner stores the record and the answer says something else.
POSTS = (
    ["ok"] * 3
    + ["stored: lost", "stored: 500", "stored: 302", "stored: text", "stored: other id", "stored: crash"]
    + ["lost", "refused", "crash", "token", "500", "503", "302", "html 403", "403 retry-after", "409 retry-after"]
    + ["401", "407", "408", "421", "423", "425", "429", "431", "422"]
)
LOOK_UPS = ["ok"] * 4 + [
    "lost",
    "crash",
    "302",
    "400",
    "401",
    "403",
    "405",
    "501",
    "html 404",
    "500",
    "503",
    "text",
    "error",
]
ABSENT = ["404", "410", "204", "null", "[]", "empty"]


class LoopClock(Clock):
    """The engine's time, which goes on while an activity waits."""

    @property
    def now(self) -> datetime:
        return self._start + timedelta(seconds=asyncio.get_running_loop().time())

    @now.setter
    def now(self, now: datetime) -> None:
        self._start = now - timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Store:
    """A partner that stores what it is sent, unless it knows the key, and shows it up to `SETTLE` seconds later."""

    resource: Resource
    clock: Clock
    draw: Callable[[list[str]], str]
    lag: float
    duplicate: str
    absent: str
    normalises: bool
    stored: Counter[str] = field(default_factory=Counter)
    shown_at: dict[str, float] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    faults: int = 12
    partner: ScriptedPartner = field(init=False)

    def __post_init__(self) -> None:
        self.partner = ScriptedPartner(respond=self.respond)

    def respond(self, call: str, id_: str, key: str) -> ApiResponse | BaseException:
        self.clock.advance(0.1)
        self.faults -= 1
        meets = self.draw(POSTS if call == "post" else LOOK_UPS) if self.faults > 0 else "ok"
        what, _, how = meets.rpartition(": ")
        if call == "post" and (what or how == "ok"):
            done = self.store(id_, key)
            return done if how == "ok" else fault(how, id_)
        if call == "look up" and how == "ok":
            return self.show(id_)
        if how == "422" and self.stored[id_]:
            return self.refusal()
        return fault(how, id_)

    def store(self, id_: str, key: str) -> ApiResponse:
        if self.resource.honours_idempotency_key and key in self.keys:
            return answer(201, {"parcelId": id_})
        if self.duplicate != "stores" and self.stored[id_]:
            return self.refusal()
        self.keys.add(key)
        self.stored[id_] += 1
        self.shown_at.setdefault(id_, self.clock.seconds() + self.lag)
        return answer(201, {"parcelId": id_})

    def refusal(self) -> ApiResponse:
        return answer(409 if self.duplicate == "409" else 422, {"title": "Duplicate"})

    def show(self, id_: str) -> ApiResponse:
        if self.stored[id_] and self.clock.seconds() >= self.shown_at[id_]:
            return answer(200, {"parcelId": id_, "weight": "other" if self.normalises else 1.5, "at": "now"})
        contents: dict[str, Any] = {"null": None, "[]": []}
        if self.absent in contents:
            return replace_content(answer(200, []), contents[self.absent])
        return answer(200 if self.absent == "empty" else int(self.absent))


def replace_content(response: ApiResponse, content: object) -> ApiResponse:
    return type(response)(response.status, {}, json.dumps(content).encode(), content)


def fault(how: str, id_: str) -> ApiResponse | BaseException:
    errors: dict[str, BaseException] = {
        "lost": ApiInterruptedError("no answer"),
        "refused": ApiConnectError("connection refused"),
        "token": TokenUnavailableError("an outage"),
        "crash": asyncio.CancelledError(),
    }
    if how in errors:
        return errors[how]
    if how.startswith("html"):
        return html(int(how[-3:]))
    if how == "text":
        return type(answer(200))(200, {}, b"{", is_readable=False)
    if how == "other id":
        return answer(201, {"parcelId": f"not {id_}"})
    if how == "error":
        return answer(200, {"error": "try again"})
    after = 3.0 if "retry-after" in how or how in {"429", "503"} else None
    return answer(int(how[:3]), after=after)


async def deliver_single(store: Store) -> dict[str, tuple[str, bool]]:
    access, host = store.partner.access(), DurableHost()
    host.put("0f5c2d", PARCEL.deliver, {})

    async def activity(_: str, order: Any) -> Any:  # noqa: ANN401 - any JSON
        return await post_one(now(order), store.resource, host.client(), access)

    input_ = single_input(b'{"parcelId":"P-1","weight":1.5}', TERMS)
    run = await play(lambda context: deliver_one(context, store.resource), input_, activity, clock=store.clock)
    return {"P-1": (run.output["state"], run.output.get("uncertain", False))}


async def deliver_many(store: Store) -> dict[str, tuple[str, bool]]:
    access, host, records = store.partner.access(), DurableHost(), BatchRecords()
    texts = [b'{"parcelId":"P-%d","weight":1.5}' % number for number in range(7)]
    input_ = batch_input(texts, TERMS)
    host.put("0f5c2d", PARCEL.deliver_batch, input_)

    async def activity(_: str, order: Any) -> Any:  # noqa: ANN401 - any JSON
        return await post_batch(now(order), store.resource, host.client(), records, access)

    run = await play(lambda context: deliver_batch(context, store.resource), input_, activity, clock=store.clock)
    counts = run.output
    assert counts["total"] == sum(counts[name] for name in ("created", "exists", "rejected", "expired"))
    states = {f"P-{number}": ("delivered", False) for number in range(7)}
    return states | {each["recordId"]: (each["state"], each.get("uncertain", False)) for each in counts["rejections"]}


def now(order: dict[str, Any]) -> dict[str, Any]:
    """The clock of the activities is the real one, that of the orchestration is not."""
    return order | {"scheduled": "2999-01-01T00:00:00+00:00", "began": "2999-01-01T00:00:00+00:00"}


# A quarter of the profile's: each example is a whole delivery.
EXAMPLES = (settings.default or settings()).max_examples // 4


@pytest.mark.unmeasured
@pytest.mark.parametrize("resource", [PARCEL, HONOURING, BLIND], ids=["look-up", "key and look-up", "key"])
@pytest.mark.parametrize("deliver", [deliver_single, deliver_many])
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_whatever_the_partner_answers_a_record_is_stored_once_and_reported_truthfully(
    resource: Resource, deliver: Callable[[Store], Any], data: st.DataObject
) -> None:
    async def delivered() -> tuple[Store, dict[str, tuple[str, bool]]]:
        store = Store(
            resource,
            LoopClock(),
            lambda options: data.draw(st.sampled_from(options)),
            data.draw(st.sampled_from([0.0, 2.0, SETTLE])),
            data.draw(st.sampled_from(["stores", "409", "422"])),
            data.draw(st.sampled_from(ABSENT)),
            data.draw(st.booleans()),
        )
        return store, await deliver(store)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        store, reports = runner.run(delivered())

    for id_, (state, is_uncertain) in reports.items():
        assert store.stored[id_] <= 1, f"{id_} is stored {store.stored[id_]} times"
        assert state != "delivered" or store.stored[id_] == 1, f"{id_} is delivered, and not stored"
        assert state == "delivered" or is_uncertain or not store.stored[id_], f"{id_} is {state}, and stored"
        assert state != "rejected" or not is_uncertain
