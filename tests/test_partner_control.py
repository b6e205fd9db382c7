"""The partner's control routes, and that its counters are exact."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from sandbox.partner.faults import Hold, Latency, Status
from tests.partner_client import running_partner

NOTHING = {
    "token_requests": 0,
    "token_outcomes": {},
    "tokens_issued": 0,
    "discovery_requests": 0,
    "discovery_outcomes": {},
    "posts": 0,
    "post_outcomes": {},
    "lookups": 0,
    "lookup_outcomes": {},
    "unauthorised": 0,
    "without_token": 0,
    "refused": 0,
    "records_stored": 0,
    "duplicates": 0,
    "replaced": 0,
    "replays": 0,
    "connections_dropped": 0,
    "clients_gone": 0,
    "in_flight": 0,
    "in_flight_most": 0,
    "other_requests": 0,
}


async def test_counts_nothing_before_the_first_request() -> None:
    async with running_partner() as partner:
        assert await partner.counters() == NOTHING
        assert await partner.records() == {"count": 0, "ids": {}, "records": [], "keys": []}


async def test_counts_concurrent_requests_exactly() -> None:
    async with running_partner() as partner:
        await partner.token()
        responses = await asyncio.gather(*(partner.post(f"b-{number}", key=f"k-{number}") for number in range(30)))
        records, counters = await partner.records(), await partner.counters()

    assert {response.status_code for response in responses} == {201}
    assert records["ids"] == {"Parcel": {f"b-{number}": 1 for number in range(30)}}
    assert counters == {
        **NOTHING,
        "token_requests": 1,
        "token_outcomes": {"issued": 1},
        "tokens_issued": 1,
        "posts": 30,
        "post_outcomes": {"201": 30},
        "records_stored": 30,
        "in_flight_most": 1,
    }


async def test_counts_concurrent_requests_exactly_under_faults() -> None:
    async with running_partner(seed=1) as partner:
        await partner.token()
        await partner.set_faults(
            {"fault": "latency", "route": "post", "seconds": [0, 0.02]},
            {"fault": "drop", "route": "post", "probability": 0.1},
            {"fault": "status", "route": "post", "status": 503, "probability": 0.1},
            {"fault": "drop", "route": "post", "stage": "after", "probability": 0.1},
            {"fault": "garble", "route": "post", "kind": "half", "probability": 0.1},
            {"fault": "status", "route": "post", "stage": "after", "status": 500, "probability": 0.1},
        )

        results = await asyncio.gather(*(partner.post(f"b-{number}") for number in range(100)), return_exceptions=True)

        records, counters = await partner.records(), await partner.counters()
        _, dropped_before, unavailable, dropped_after, halved, failed = await partner.fired()

    statuses = [result.status_code for result in results if isinstance(result, httpx.Response)]
    broken = [result for result in results if isinstance(result, httpx.TransportError)]
    created = statuses.count(201)
    assert min(dropped_before, unavailable, dropped_after, failed, created) > 0
    assert len(statuses) + len(broken) == 100
    assert (statuses.count(503), statuses.count(500)) == (unavailable, failed)
    assert counters["posts"] == 100
    assert sum(counters["post_outcomes"].values()) == 100
    assert counters["connections_dropped"] == len(broken)
    assert counters["post_outcomes"]["dropped"] == dropped_before + dropped_after
    assert counters["post_outcomes"]["201"] == created
    # A fault that halves an answer may meet another one that replaces it, which then counts.
    assert counters["post_outcomes"]["half"] == len(broken) - dropped_before - dropped_after <= halved
    assert records["count"] == counters["records_stored"] == 100 - dropped_before - unavailable
    assert set(records["ids"]["Parcel"].values()) == {1}


async def test_the_same_seed_gives_the_same_faults_to_the_same_records() -> None:
    async def outcomes(seed: int) -> list[object]:
        async with running_partner(seed=seed) as partner:
            await partner.token()
            await partner.set_faults(
                {"fault": "drop", "route": "post", "probability": 0.3},
                {"fault": "status", "route": "post", "status": 500, "probability": 0.3},
            )
            results = await asyncio.gather(
                *(partner.post(f"b-{number}") for number in range(20)), return_exceptions=True
            )
        return [result.status_code if isinstance(result, httpx.Response) else type(result) for result in results]

    first, second, other = await outcomes(5), await outcomes(5), await outcomes(6)

    assert first == second
    assert first != other


async def test_counts_requests_without_a_token_also_where_a_fault_hits_them() -> None:
    async with running_partner(faults=(Status(route="post", status=503),)) as partner:
        response = await partner.post()
        counters = await partner.counters()

    assert response.status_code == 503
    assert (counters["without_token"], counters["unauthorised"]) == (1, 0)


async def test_revokes_all_tokens() -> None:
    async with running_partner(token_lifetime=60) as partner:
        await partner.token()
        partner.clock.advance(30)
        await partner.token()
        await partner.token()
        partner.clock.advance(30)
        revoked = await partner.control.post("/sandbox/revoke")
        again = await partner.control.post("/sandbox/revoke", json={"tokens": "all"})
        after = await partner.get()
        await partner.token()
        renewed = await partner.get()

    assert revoked.json() == {"revoked": 2}
    assert again.json() == {"revoked": 0}
    assert (after.status_code, renewed.status_code) == (401, 404)


async def test_revokes_only_the_newest_token() -> None:
    async with running_partner() as partner:
        none = await partner.control.post("/sandbox/revoke", json={"tokens": "newest"})
        older = await partner.token()
        newer = await partner.token()
        revoked = await partner.control.post("/sandbox/revoke", json={"tokens": "newest"})
        path = "/parcels/x"
        statuses = [
            (await partner.http.get(path, headers={"Authorization": f"Bearer {token}"})).status_code
            for token in (older, newer)
        ]
        tokens = (await partner.control.get("/sandbox/tokens")).json()

    assert (none.json(), revoked.json()) == ({"revoked": 0}, {"revoked": 1})
    assert statuses == [404, 401]
    assert [(token["number"], token["revoked"], token["used"]) for token in tokens] == [(1, False, 1), (2, True, 0)]


@pytest.mark.parametrize("body", [b"{", b'{"tokens": "some"}', b'{"token": "all"}', b"\xff"])
async def test_refuses_a_revocation_that_makes_no_sense(body: bytes) -> None:
    async with running_partner() as partner:
        await partner.token()
        response = await partner.control.post("/sandbox/revoke", content=body)
        after = await partner.get()

    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert after.status_code == 404


async def test_sets_adds_and_removes_faults() -> None:
    drop = {"fault": "drop", "route": "post"}
    async with running_partner() as partner:
        await partner.control.put("/sandbox/faults", json=[drop, drop])
        await partner.control.post("/sandbox/faults", json={"fault": "hold", "route": "get", "gate": "g"})
        await partner.control.post("/sandbox/faults", json=[{"fault": "latency", "route": "get", "seconds": 1}])
        added = (await partner.control.get("/sandbox/faults")).json()
        await partner.control.put("/sandbox/faults", json=[drop])
        replaced = (await partner.control.get("/sandbox/faults")).json()
        removed = (await partner.control.delete("/sandbox/faults")).json()

    assert [fault["fault"] for fault in added] == ["drop", "drop", "hold", "latency"]
    assert [(fault["fault"], fault["how"], fault["fired"]) for fault in replaced] == [("drop", "reset", 0)]
    assert removed == []


async def test_a_reset_forgets_everything_but_the_configuration() -> None:
    async with running_partner(faults=(Status(route="get", status=418, times=1),)) as partner:
        await partner.token()
        await partner.post(key="k")
        assert [(await partner.get()).status_code for _ in range(2)] == [418, 200]
        await partner.set_faults({"fault": "drop", "route": "any"})

        response = await partner.control.post("/sandbox/reset")

        counters, records = await partner.counters(), await partner.records()
        tokens = (await partner.control.get("/sandbox/tokens")).json()
        statuses = [(await partner.get()).status_code for _ in range(2)]

    assert response.status_code == 200
    assert (counters, records["count"], records["keys"], tokens) == (NOTHING, 0, [], [])
    assert statuses == [418, 401]


@pytest.mark.parametrize("stage", ["before", "after"])
@pytest.mark.parametrize("waiting", [{"fault": "hold", "gate": "g"}, {"fault": "latency", "seconds": 600}])
async def test_a_reset_drops_what_is_waiting_and_counts_nothing_of_it(waiting: dict[str, object], stage: str) -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.set_faults({**waiting, "route": "post", "stage": stage})
        held = asyncio.create_task(partner.post())
        await partner.fired_once()

        await partner.control.post("/sandbox/reset")

        with pytest.raises(httpx.RemoteProtocolError):
            await held
        counters, records = await partner.counters(), await partner.records()

    assert (counters, records["count"]) == (NOTHING, 0)


@pytest.mark.parametrize("fault", [Hold(route="get", gate="g"), Latency(route="get", seconds=600)])
async def test_stopping_drops_what_is_waiting(fault: Hold | Latency, caplog: pytest.LogCaptureFixture) -> None:
    async with httpx.AsyncClient() as http:
        async with running_partner(faults=(fault,)) as partner:
            held = asyncio.create_task(http.get(f"{partner.base_url}/parcels/x"))
            await partner.fired_once()

        with pytest.raises(httpx.TransportError):
            await held

    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


async def test_the_console_sees_what_happens_and_what_is_set() -> None:
    async with running_partner(faults=(Status(route="post", status=503, times=1),)) as partner:
        await partner.token()
        await partner.post("b-1")
        await partner.post("b-1")
        state = (await partner.control.get("/sandbox/state")).json()

    totals = {"calls": 2, "tokenRequests": 1, "refused": 1, "stored": 1}
    shown = {**totals, "duplicates": 0, "inFlight": 0, "inFlightMost": 1}
    assert {name: state[name] for name in shown} == shown
    assert state["partners"] == {"CARRIER_API": shown}
    assert {name: sum(second[name] for second in state["seconds"]) for name in totals} == totals
    assert [(fault["fault"], fault["fired"]) for fault in state["faults"]] == [("status", 1)]
    assert state["fault"] == "status"


@pytest.mark.parametrize(
    ("button", "body", "expected"),
    [
        ("limit", {}, {"fault": "limit", "rate": 20}),
        ("limit", {"rate": 5, "headers": "draft"}, {"fault": "limit", "rate": 5, "headers": "draft"}),
        ("down", {}, {"fault": "status", "route": "any", "status": 503}),
        ("down", {"window": [0, 9], "status": 502}, {"fault": "status", "status": 502, "window": [0, 9]}),
        ("slow", {"seconds": 0.5}, {"fault": "latency", "route": "api", "seconds": 0.5}),
    ],
)
async def test_a_button_sets_its_fault_once_and_recovering_removes_it(
    button: str, body: dict[str, object], expected: dict[str, object]
) -> None:
    async with running_partner() as partner:
        await partner.set_faults({"fault": "drop", "route": "token"})
        await partner.control.post(f"/sandbox/{button}", json=body)
        faults = (await partner.control.post(f"/sandbox/{button}", json=body)).json()
        refused = await partner.control.post(f"/sandbox/{button}", json={"seconds": "long", "rate": -1, "status": 1})
        recovered = (await partner.control.post("/sandbox/recover")).json()

    assert [fault["fault"] for fault in faults] == ["drop", expected["fault"]]
    assert expected.items() <= faults[1].items()
    assert (refused.status_code, recovered) == (400, [])


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [("http://127.0.0.1:7071", True), ("http://localhost:80", True), ("http://127.0.0.1.evil.example", False)],
)
async def test_only_pages_of_this_machine_may_control_the_partner(origin: str, is_allowed: bool) -> None:  # noqa: FBT001, a parameter of the test
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    async with running_partner() as partner:
        asked = await partner.control.options("/sandbox/limit", headers=preflight)
        answered = await partner.control.get("/sandbox/state", headers={"Origin": origin})

    assert asked.is_success == is_allowed
    assert answered.headers.get("access-control-allow-origin") == (origin if is_allowed else None)


@pytest.mark.parametrize(
    ("fault", "words"), [({"partner": "CRM_API"}, "CARRIER_API"), ({"resource": "Order"}, "only Parcel")]
)
async def test_refuses_a_fault_for_what_it_does_not_serve(fault: dict[str, str], words: str) -> None:
    async with running_partner() as partner:
        response = await partner.control.put("/sandbox/faults", json=[{"fault": "drop", "route": "post", **fault}])

    assert response.status_code == 400
    assert words in response.json()["detail"]
