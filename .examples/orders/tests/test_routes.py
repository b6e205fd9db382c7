from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp
import httpx
import pytest
from azure.functions import HttpRequest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.delivery import routes
from shared.delivery.batch_input import batch_input, keys_of, records_of
from shared.delivery.exchange import Reply, Request
from shared.errors import SettingsError, TokenRejectedError, TokenUnavailableError
from shared.settings import Settings
from tests.fakes.durable_client import BROKEN, DurableHost, Instance
from tests.fakes.fast_loop import run_fast
from tests.fakes.scripted_partner import ScriptedPartner, found, missing, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.api.business_api import BusinessApi

RECORD = business("b-1")
ENVIRON = {
    "BUSINESS_API_URL": "https://partner.example/v1",
    "BUSINESS_API_TOKEN_URL": "https://login.example/token",
    "BUSINESS_API_CLIENT_ID": "relay",
    "BUSINESS_API_CLIENT_SECRET": "s3cr3t",
    "BUSINESS_API_MAX_CONNECTIONS": "120",
    "DELIVERY_DEADLINE": "600",
    "DELIVERY_LOOK_UP": "uncertain",
}
TERMS = {"retry": {"deadline": 600.0, "first": 1.0, "max": 300.0}, "lookUp": "uncertain"}


def usable() -> Settings:
    return Settings.from_environ(ENVIRON)


def unusable() -> Settings:
    raise SettingsError(["BUSINESS_API_URL is missing", "BUSINESS_API_CLIENT_ID is missing"])


def request(
    body: object = None,
    path: str = "/api/businesses",
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A request as function_app makes it of the host's; underscores in a header's name stand for hyphens."""
    named = {"content-type": "application/json"}
    named |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = path if "://" in path else f"https://app.example{path}"
    query = dict(parse_qsl(urlsplit(url).query))
    host = HttpRequest("POST", url, headers=named, params=query, route_params=params or {}, body=octets)
    return Request(host.url, host.headers, host.get_body(), host.route_params, host.params)


def content(reply: Reply) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(reply.body)


def is_problem(reply: Reply, status: int) -> bool:
    is_told = reply.headers["content-type"] == "application/problem+json" and content(reply)["status"] == status
    return is_told and reply.status == status


async def post(host: DurableHost, body: object = RECORD, **headers: str) -> Reply:
    return await routes.post_business(request(body, headers=headers), host.client(), usable)


async def post_batch(host: DurableHost, records: object, **headers: str) -> Reply:
    return await routes.post_batch(request(records, "/api/businesses/batch", headers=headers), host.client(), usable)


async def redeliver(host: DurableHost, batch_id: str) -> Reply:
    path = f"/api/batches/{batch_id}/redeliver"
    return await routes.redeliver_batch(request(b"", path, {"id": batch_id}), host.client(), usable)


def the_instance(host: DurableHost) -> Instance:
    [instance] = host.instances.values()
    return instance


async def test_a_business_is_accepted_with_the_links_of_its_delivery() -> None:
    host = DurableHost()

    reply = await post(host)
    [instance_id] = host.instances
    assert reply.status == 202
    assert reply.headers["location"] == content(reply)["statusQueryGetUri"]
    assert content(reply)["id"] == instance_id


async def test_a_delivery_starts_with_the_record_and_the_terms_of_the_settings() -> None:
    host = DurableHost()

    await post(host)
    assert the_instance(host).name == "DeliverBusiness"
    assert json.loads(the_instance(host).input) == {"business": RECORD, **TERMS}


async def test_the_input_of_a_delivery_has_no_secret() -> None:
    host = DurableHost()

    await post(host)
    assert "s3cr3t" not in the_instance(host).input


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(b"{", "application/json", 400), (RECORD, "text/plain", 415), ({}, "application/json", 422)],
)
async def test_a_bad_request_starts_nothing(body: object, content_type: str, status: int) -> None:
    host = DurableHost()

    assert is_problem(await post(host, body, content_type=content_type), status)
    assert is_problem(await post_batch(host, body, content_type=content_type), status)
    assert host.calls == []


async def test_a_bad_key_starts_nothing() -> None:
    host = DurableHost()

    assert is_problem(await post(host, idempotency_key="a b"), 400)
    assert is_problem(await post_batch(host, [RECORD], idempotency_key="a b"), 400)
    assert host.calls == []


async def test_settings_that_are_wrong_start_nothing_and_are_all_named() -> None:
    host = DurableHost()
    finished = Instance("DeliverBatch", json.dumps({"businesses": [RECORD], "digest": "d"}), "Failed")
    host.instances["batch"] = finished

    for reply in (
        await routes.post_business(request(RECORD), host.client(), unusable),
        await routes.post_batch(request([RECORD]), host.client(), unusable),
        await routes.redeliver_batch(request(b"", params={"id": "batch"}), host.client(), unusable),
    ):
        assert is_problem(reply, 503)
        assert [error["detail"] for error in content(reply)["errors"]] == [
            "BUSINESS_API_URL is missing",
            "BUSINESS_API_CLIENT_ID is missing",
        ]
    assert host.instances == {"batch": finished}


@pytest.mark.parametrize("duplicate_status", [409, 500])
async def test_fifty_callers_with_one_key_get_one_delivery(duplicate_status: int) -> None:
    host = DurableHost(duplicate_status)

    replies = await asyncio.gather(*(post(host, idempotency_key="order-7") for _ in range(50)))
    assert {reply.status for reply in replies} == {202}
    assert len({content(reply)["id"] for reply in replies}) == 1
    assert the_instance(host).starts == 1


async def test_a_key_finds_its_delivery_after_it_has_finished() -> None:
    host = DurableHost()
    first = await post(host, idempotency_key="order-7")
    the_instance(host).status = "Completed"

    assert content(await post(host, idempotency_key="order-7")) == content(first)
    assert the_instance(host).starts == 1


async def test_a_key_that_was_used_for_another_record_is_a_409() -> None:
    host = DurableHost()
    await post(host, idempotency_key="order-7")

    assert is_problem(await post(host, RECORD | {"note": "Bob"}, idempotency_key="order-7"), 409)
    assert is_problem(await post_batch(host, [RECORD], idempotency_key="order-7"), 409)
    assert the_instance(host).starts == 1


@pytest.mark.parametrize("fault", [aiohttp.ClientConnectionError("refused"), BROKEN, KeyError("id")])
async def test_a_host_that_starts_nothing_is_a_503(fault: Any) -> None:  # noqa: ANN401 - an answer or an exception
    host = DurableHost()
    host.start_faults.append((fault, False))

    reply = await post(host)
    assert is_problem(reply, 503)
    assert reply.headers["retry-after"] == "1"


def finishing(status: str, output: object, custom_status: object = None) -> DurableHost:
    """A host whose deliveries finish at the third look."""
    host = DurableHost()

    def finish(instance: Instance) -> None:
        if instance.looks >= 3:
            instance.status, instance.output, instance.custom_status = status, output, custom_status

    host.on_read = finish
    return host


def test_a_caller_who_prefers_to_wait_gets_the_result() -> None:
    host = finishing("Completed", {"outcome": "created", "externalId": "b-1", "attempts": 1})

    reply, waited = run_fast(post(host, prefer="wait=20", idempotency_key="order-7"))
    [instance_id] = host.instances
    assert reply.status == 200
    assert content(reply) == {"instanceId": instance_id, "outcome": "created", "externalId": "b-1", "attempts": 1}
    assert reply.headers["preference-applied"] == "wait"
    assert waited < 1


def test_a_caller_who_has_waited_in_vain_gets_the_links() -> None:
    reply, waited = run_fast(post(DurableHost(), prefer="wait=20"))

    assert reply.status == 202
    assert "preference-applied" not in reply.headers
    assert waited == pytest.approx(20)


def test_a_caller_waits_no_longer_than_the_platform_lets_him() -> None:
    reply, waited = run_fast(post(DurableHost(), prefer="wait=86400"))

    assert reply.status == 202
    assert waited == pytest.approx(200)


@pytest.mark.parametrize("prefer", ["", "respond-async", "wait=0", "wait=soon"])
def test_a_caller_who_does_not_want_to_wait_does_not(prefer: str) -> None:
    reply, waited = run_fast(post(finishing("Completed", {}), prefer=prefer))

    assert (reply.status, waited) == (202, 0)


def test_a_delivery_that_cannot_be_watched_is_accepted_all_the_same() -> None:
    # Without a key the caller cannot send it again: it would be a second delivery.
    host = finishing("Completed", {})
    host.read_faults.extend([[404, ""], *[BROKEN] * 100])

    reply, _ = run_fast(post(host, prefer="wait=5"))
    assert reply.status == 202
    assert the_instance(host).starts == 1


@pytest.mark.parametrize(
    ("status", "custom_status", "expected"),
    [
        ("Failed", {"outcome": "rejected", "status": 422}, 422),
        ("Failed", {"outcome": "deferred", "status": 503}, 504),
        ("Failed", None, 500),
        ("Failed", "text", 500),
        ("Failed", {"total": 3}, 500),
        ("Terminated", None, 500),
        # It had waited for its next attempt.
        ("Failed", {"outcome": "deferred", "nextAttempt": "2026-02-01T00:00:00+00:00"}, 500),
        ("Terminated", {"outcome": "deferred", "nextAttempt": "2026-02-01T00:00:00+00:00"}, 500),
        ("Terminated", {"outcome": "rejected", "status": 422}, 500),
    ],
)
def test_a_delivery_that_failed_is_a_problem_that_says_why(status: str, custom_status: object, expected: int) -> None:
    host = finishing(status, "Orchestrator function 'DeliverBusiness' failed: no such city", custom_status)

    reply, _ = run_fast(post(host, prefer="wait=20"))
    assert is_problem(reply, expected)
    assert "no such city" in content(reply)["detail"]
    assert reply.headers["preference-applied"] == "wait"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ([RECORD, RECORD | {"externalId": "b-2"}], "application/json"),
        (f"{json.dumps(RECORD)}\n\n{json.dumps(business('b-2'))}\r\n".encode(), "application/x-ndjson"),
    ],
)
async def test_a_batch_is_accepted_and_starts_with_its_records_and_terms(body: object, content_type: str) -> None:
    host = DurableHost()

    reply = await post_batch(host, body, content_type=content_type)
    assert reply.status == 202
    assert the_instance(host).name == "DeliverBatch"
    given = json.loads(the_instance(host).input)
    assert given == {
        **batch_input([RECORD, RECORD | {"externalId": "b-2"}]),
        **TERMS,
        "chunk": 50,
        "parallel": 2,
        "order": 250,
    }


def finished_batch(status: str = "Completed", output: object = None, custom_status: object = None) -> DurableHost:
    records = [RECORD | {"externalId": f"b-{number}"} for number in range(5)]
    host = DurableHost()
    given = json.dumps(batch_input(records))
    host.instances["key-1"] = Instance("DeliverBatch", given, status, output, custom_status)
    return host


def redelivered(host: DurableHost) -> list[str]:
    given = json.loads(host.instances["key-1-redelivery-1"].input)
    assert given["lookUp"] == "always"
    return [record["externalId"] for record in records_of(given)]


async def test_the_rejected_records_of_a_batch_are_delivered_again() -> None:
    host = finished_batch(output={"rejections": [{"index": 3}, {"index": 1}]})

    reply = await redeliver(host, "key-1")
    assert (reply.status, content(reply)["id"]) == (202, "key-1-redelivery-1")
    assert redelivered(host) == ["b-1", "b-3"]


@pytest.mark.parametrize("status", ["Failed", "Terminated"])
async def test_of_a_batch_that_was_ended_all_is_delivered_again_that_is_not_known_to_be(status: str) -> None:
    host = finished_batch(status, custom_status={"delivered": "0,2", "posting": "3"})

    assert (await redeliver(host, "key-1")).status == 202
    assert redelivered(host) == ["b-1", "b-3", "b-4"]


async def test_a_redelivery_posts_under_the_old_keys_what_the_partner_has_not_answered_for_good() -> None:
    host = finished_batch(output={"rejections": [{"index": 3}, {"index": 1, "status": 422}]})

    await redeliver(host, "key-1")
    given = json.loads(host.instances["key-1-redelivery-1"].input)
    assert keys_of(given, "key-1-redelivery-1") == ["key-1-redelivery-1-0", "key-1-3"]
    assert "pause" not in given


async def test_a_redelivery_waits_until_no_activity_of_an_ended_batch_posts_any_more() -> None:
    host = finished_batch("Terminated", custom_status={"delivered": "0", "posting": "1-4"})
    host.instances["key-1"].updated = datetime.now(UTC)

    await redeliver(host, "key-1")
    given = json.loads(host.instances["key-1-redelivery-1"].input)
    assert given["pause"] == pytest.approx(2 + 2 * 30, abs=5)


async def test_a_batch_that_is_begun_anew_gets_a_redelivery_of_its_own() -> None:
    host = finished_batch(output={"rejections": [{"index": 3}]})
    await redeliver(host, "key-1")
    host.instances["key-1-redelivery-1"].status = "Completed"
    host.instances["key-1"].created = host.instances["key-1-redelivery-1"].created + timedelta(seconds=1)

    assert content(await redeliver(host, "key-1"))["id"] == "key-1-redelivery-2"


async def test_asking_for_a_redelivery_again_starts_nothing_new() -> None:
    host = finished_batch(output={"rejections": [{"index": 3}]})

    assert content(await redeliver(host, "key-1")) == content(await redeliver(host, "key-1"))
    assert host.instances["key-1-redelivery-1"].starts == 1


async def test_records_of_an_old_batch_that_no_longer_meet_the_rules_can_still_be_delivered_again() -> None:
    host = DurableHost()
    old = {"businesses": [{"externalId": "b-1"}], "digest": "d"}
    host.instances["key-1"] = Instance("DeliverBatch", json.dumps(old), "Failed")

    assert (await redeliver(host, "key-1")).status == 202
    assert redelivered(host) == ["b-1"]


@pytest.mark.parametrize("batch_id", ["unknown", "", ".", "..", "a/b", "a%2Fb", "a?b", "a#b", "x" * 101, "a\n", "ö"])
async def test_a_batch_that_cannot_be_is_a_404(batch_id: str) -> None:
    host = DurableHost()

    assert is_problem(await redeliver(host, batch_id), 404)
    assert all(call == "GET http://127.0.0.1:7071/durabletask/instances/unknown?showInput=True" for call in host.calls)


async def test_a_delivery_that_is_no_batch_is_a_404() -> None:
    host = DurableHost()
    host.instances["key-1"] = Instance("DeliverBusiness", json.dumps({"business": RECORD}), "Completed")

    assert is_problem(await redeliver(host, "key-1"), 404)


@pytest.mark.parametrize(
    "host", [finished_batch("Running"), finished_batch(output={"rejections": []})], ids=["running", "nothing left"]
)
async def test_a_batch_with_nothing_to_redeliver_is_a_409(host: DurableHost) -> None:
    assert is_problem(await redeliver(host, "key-1"), 409)


async def test_a_batch_whose_state_cannot_be_read_is_a_503() -> None:
    host = finished_batch()
    host.read_faults.append(BROKEN)

    assert is_problem(await redeliver(host, "key-1"), 503)


async def get(partner: ScriptedPartner, external_id: str = "b-1") -> Reply:
    asked = request(b"", f"/api/businesses/{external_id}", {"externalId": external_id})
    return await routes.get_business(asked, partner.api)


async def test_the_record_of_the_partner_is_shown_as_it_is() -> None:
    partner = ScriptedPartner(found(RECORD | {"id": 7}))

    reply = await get(partner)
    assert (reply.status, content(reply)) == (200, RECORD | {"id": 7})
    assert reply.headers == {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("external_id", "path"),
    [
        ("a%2Fb", "a%2Fb"),
        ("a%2fb", "a%2Fb"),
        ("a b", "a%20b"),
        ("ö?#", "%C3%B6%3F%23"),
        ("...", "..."),
        ("a%20b", "a%2520b"),
    ],
)
async def test_an_external_id_is_asked_for_as_one_segment(external_id: str, path: str) -> None:
    partner = ScriptedPartner(missing())

    assert is_problem(await get(partner, external_id), 404)
    assert partner.calls == [f"GET /v1/business/by-external/{path}"]


@pytest.mark.parametrize("external_id", [".", "..", "x" * 129, "a\nb", "a\x7f"])
async def test_an_external_id_that_cannot_be_is_a_400_and_nobody_is_asked(external_id: str) -> None:
    partner = ScriptedPartner()

    reply = await get(partner, external_id)
    assert is_problem(reply, 400)
    assert content(reply)["errors"][0]["pointer"] == "#/externalId"
    assert partner.requests == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, 404) for status in (204, 404, 410)),
        *((status, 503) for status in (429, 503)),
        (504, 504),
        *((status, 502) for status in (301, 400, 401, 403, 405, 408, 409, 418, 500, 501, 502, 599)),
    ],
)
async def test_what_the_partner_answers_becomes_a_problem_of_ours(status: int, expected: int) -> None:
    reply = await get(ScriptedPartner(httpx.Response(status)))

    assert is_problem(reply, expected)


@pytest.mark.parametrize("status", [429, 503])
async def test_the_wish_of_a_busy_partner_is_passed_on(status: int) -> None:
    assert (await get(ScriptedPartner(refused(status, retry_after="7")))).headers["retry-after"] == "7"


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"\xff"])
async def test_a_record_that_is_not_json_is_a_502(body: bytes) -> None:
    reply = await get(ScriptedPartner(httpx.Response(200, content=body)))

    assert is_problem(reply, 502)
    assert content(reply)["detail"] == "The partner answered 200 with a body that is not JSON."


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (httpx.ConnectError("refused"), 502),
        (httpx.PoolTimeout("full"), 502),
        (httpx.ReadTimeout("slow"), 504),
        (httpx.RemoteProtocolError("half"), 504),
        (TokenRejectedError("invalid_client"), 502),
        (TokenUnavailableError("down"), 503),
    ],
)
async def test_a_partner_that_cannot_be_asked_is_a_problem(fault: Exception, expected: int) -> None:
    reply = await get(ScriptedPartner(fault))

    assert is_problem(reply, expected)
    assert "retry-after" not in reply.headers


async def test_the_wish_of_a_busy_token_server_is_passed_on() -> None:
    reply = await get(ScriptedPartner(TokenUnavailableError("busy", retry_after=2.5)))

    assert reply.headers["retry-after"] == "3"


async def test_a_record_cannot_be_shown_without_settings() -> None:
    async def no_api() -> BusinessApi:
        raise SettingsError(["BUSINESS_API_URL is missing"])

    reply = await routes.get_business(request(b"", params={"externalId": "b-1"}), no_api)
    assert is_problem(reply, 503)
    assert content(reply)["errors"] == [{"pointer": "#", "detail": "BUSINESS_API_URL is missing"}]


async def test_health_tells_anybody_that_the_settings_are_valid() -> None:
    reply = await routes.get_health(request(b"", "/api/health"), usable)

    assert (reply.status, content(reply)) == (200, {"status": "ok"})
    assert reply.headers["cache-control"] == "no-store"


async def test_health_tells_nobody_what_is_wrong() -> None:
    reply = await routes.get_health(request(b"", "/api/health"), unusable)

    assert (reply.status, content(reply)) == (503, {"status": "unavailable"})


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://app.example/api/health?deep=true", "https://app.example/api/health/deep"),
        ("https://app.example/api/health/?deep=1", "https://app.example/api/health/deep"),
        ("https://app.example/api/health?deep=TRUE&code=k%2Fey", "https://app.example/api/health/deep?code=k%2Fey"),
        ("https://app.example/api/health?x=1&code=key&deep=1", "https://app.example/api/health/deep?code=key"),
        ("https://proxy.example/relay/api/health?deep=1", "https://proxy.example/relay/api/health/deep"),
    ],
)
async def test_deep_health_is_elsewhere_where_a_key_is_asked_for(url: str, target: str) -> None:
    reply = await routes.get_health(request(b"", url), unusable)

    assert reply.status == 307
    assert urljoin(url, reply.headers["location"]) == target
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("deep", ["", "false", "0", "no", "2"])
async def test_anything_else_is_not_deep(deep: str) -> None:
    assert (await routes.get_health(request(b"", f"/api/health?deep={deep}"), usable)).status == 200


@given(
    st.text(alphabet="/\\.:@%2f5cevil api\r\n\t?#", max_size=30),
    st.text(alphabet="code=&/\\.:@%\r\n evil", max_size=30),
)
def test_the_redirect_of_health_never_leaves_the_host(path: str, query: str) -> None:
    url = f"https://app.example/{path}?deep=1&{query}"
    asked = Request(url, {}, query={"deep": "1"})

    reply, _ = run_fast(routes.get_health(asked, usable))
    location = reply.headers["location"]
    assert location.partition("?")[0] in {"deep", "health/deep"}
    assert not {"\r", "\n"} & set(location)
    assert httpx.URL("https://app.example/api/health").join(location.partition("?")[0]).host == "app.example"


async def test_deep_health_says_that_a_token_can_be_had() -> None:
    async def check() -> None:
        return None

    assert (await routes.get_deep_health(check)).status == 200


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (SettingsError(["BUSINESS_API_URL is missing"]), "The app settings are not usable."),
        (TokenRejectedError("invalid_client"), "The partner's token endpoint refuses this app; the log says why."),
        (TokenUnavailableError("down"), "No access token can be had now; the log says why."),
    ],
)
async def test_deep_health_says_what_is_at_fault(fault: Exception, words: str) -> None:
    async def check() -> None:
        raise fault

    reply = await routes.get_deep_health(check)
    assert is_problem(reply, 503)
    assert content(reply)["detail"] == words
