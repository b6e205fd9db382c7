"""What the app's routes do: from a request to a reply, one function a route."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from shared.delivery import batch_intake, intake
from shared.delivery.batch_input import batch_input
from shared.delivery.durable_client import accepted, find, wait_until_finished
from shared.delivery.exchange import Reply
from shared.delivery.preference import preferred_wait
from shared.delivery.problem import ProblemError, problem
from shared.delivery.redelivery import redelivery_id, undelivered
from shared.delivery.settling import settling_pause
from shared.delivery.starting import start_once
from shared.delivery.terms import batch_terms, terms
from shared.delivery.verdict import NO_CONTENT
from shared.errors import (
    ApiConnectError,
    ApiInterruptedError,
    Fault,
    InvalidBusinessError,
    SettingsError,
    TokenRejectedError,
    TokenUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from shared.api.business_api import BusinessApi
    from shared.api.responses import ApiResponse
    from shared.delivery.durable_client import DurableClient, Instance
    from shared.delivery.exchange import Request
    from shared.settings import Settings

logger = logging.getLogger(__name__)

DELIVER_BUSINESS = "DeliverBusiness"
DELIVER_BATCH = "DeliverBatch"
# All that a caller learns of a token that cannot be had: the server's words are for the operators, in the log line
# `token request failed`.
AUTH_REFUSED = "The partner's token endpoint refuses this app; the log says why."
AUTH_UNAVAILABLE = "No access token can be had now; the log says why."
# Durable's ids may be more, but these cannot break out of the URL into which its SDK puts them, as dots alone can.
INSTANCE_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_@:.-]{1,100}")


async def post_business(request: Request, client: DurableClient, settings: Callable[[], Settings]) -> Reply:
    """Take a business, and start its delivery: 202 with the links to watch it, or with `Prefer: wait` its result."""
    try:
        business = intake.read_business(request)
        named = intake.instance_id(request)
        its = settings()
        input_ = {"business": business.to_json(), **terms(its.delivery)}
        return await _reply(request, client, await _start(client, DELIVER_BUSINESS, named, input_, its.timeout))
    except ProblemError as exc:
        return exc.reply
    except SettingsError as exc:
        return _settings_problem(exc)


async def post_batch(request: Request, client: DurableClient, settings: Callable[[], Settings]) -> Reply:
    """Take a batch of businesses, and start its delivery, as `post_business` does for one."""
    try:
        records = [business.to_json() for business in batch_intake.read_batch(request)]
        named = intake.instance_id(request)
        its = settings()
        input_ = {**batch_input(records), **batch_terms(its)}
        return await _reply(request, client, await _start(client, DELIVER_BATCH, named, input_, its.timeout))
    except ProblemError as exc:
        return exc.reply
    except SettingsError as exc:
        return _settings_problem(exc)


async def redeliver_batch(request: Request, client: DurableClient, settings: Callable[[], Settings]) -> Reply:
    """Start a batch with the records that a finished batch has left undelivered; asking again starts nothing new."""
    try:
        batch_id = request.params["id"]
        batch = await find(client, batch_id, show_input=True) if INSTANCE_ID.fullmatch(batch_id) else None
        if batch is None:
            return problem(404, "There is no batch with this id.")
        # Their rules may have changed since: the delivery finds that out, record by record. And some of them may have
        # reached the partner all the same.
        left, its = undelivered(batch), settings()
        input_ = {**batch_input(left.records, left.keys), **batch_terms(its), "lookUp": "always"}
        if batch.status != "Completed":
            input_ |= settling_pause(batch, its.timeout)
        named = await redelivery_id(client, batch, input_)
        return await _reply(request, client, await _start(client, DELIVER_BATCH, named, input_, its.timeout))
    except ProblemError as exc:
        return exc.reply
    except SettingsError as exc:
        return _settings_problem(exc)


async def get_business(request: Request, business_api: Callable[[], Awaitable[BusinessApi]]) -> Reply:
    """Give the partner's record of a business."""
    # The host decodes a path but for the slash, which it leaves as %2F.
    external_id = request.params["externalId"].replace("%2F", "/").replace("%2f", "/")
    try:
        api = await business_api()
        return _record(await api.get_business(external_id))
    except InvalidBusinessError as exc:
        faults = [Fault("/externalId", fault.detail) for fault in exc.faults]
        return problem(400, f"The external id {exc}.", errors=faults)
    except SettingsError as exc:
        return _settings_problem(exc)
    except TokenUnavailableError as exc:
        return problem(503, AUTH_UNAVAILABLE, retry_after=exc.retry_after)
    except (TokenRejectedError, ApiConnectError) as exc:
        return problem(502, AUTH_REFUSED if isinstance(exc, TokenRejectedError) else str(exc))
    except ApiInterruptedError as exc:
        return problem(504, str(exc))


async def get_health(request: Request, settings: Callable[[], Settings]) -> Reply:
    """Say whether the settings are valid, and nothing else: anybody may ask.

    With `?deep=true` it sends the caller on to the route that wants a key: only the host can check one.
    """
    if request.query.get("deep", "").lower() in {"true", "1"}:
        parts = urlsplit(request.url)
        query = "&".join(pair for pair in parts.query.split("&") if pair.startswith("code="))
        # Relative to the request's path, of which nothing is repeated: nobody can be sent to another host.
        location = ("deep" if parts.path.endswith("/") else "health/deep") + (f"?{query}" if query else "")
        return Reply.json(307, {"status": "elsewhere"}, {"location": location, "cache-control": "no-store"})
    try:
        settings()
    except SettingsError:
        return _health(503)
    return _health(200)


async def get_deep_health(check_token: Callable[[], Awaitable[None]]) -> Reply:
    """Say whether the settings are valid and a token can be had; for those who have a key, also which is at fault."""
    try:
        await check_token()
    except SettingsError as exc:
        return _settings_problem(exc)
    except TokenRejectedError:
        return problem(503, AUTH_REFUSED)
    except TokenUnavailableError:
        return problem(503, AUTH_UNAVAILABLE)
    return _health(200)


def get_openapi() -> Reply:
    """Give the OpenAPI document of these routes."""
    # Few ever ask for it: it is not part of a cold start.
    from shared.delivery.openapi import document  # noqa: PLC0415

    return Reply(200, document(), {"content-type": "application/json"})


def unknown_route(method: str) -> Reply:
    """Say that there is no such route."""
    return problem(404, f"There is no such route for {method}; the routes are in GET /api/openapi.json.")


async def _start(
    client: DurableClient, orchestrator: str, named: str | None, input_: Mapping[str, Any], call_timeout: float
) -> str:
    """Start a delivery unless it is there already; give its instance id.

    `named` is the instance id that the delivery has in any case, None for one of its own.
    """
    instance_id = await start_once(client, orchestrator, named, input_, call_timeout)
    logger.info("delivery accepted", extra={"instance_id": instance_id, "orchestrator": orchestrator})
    return instance_id


async def _reply(request: Request, client: DurableClient, instance_id: str) -> Reply:
    """Wait for a delivery's result as long as its caller would."""
    wait = preferred_wait(request.headers)
    finished = await wait_until_finished(client, instance_id, wait) if wait else None
    return _result(finished) if finished else accepted(client, request, instance_id)


def _result(instance: Instance) -> Reply:
    """Give the result of a finished delivery that its caller has waited for."""
    applied = {"preference-applied": "wait"}
    if instance.status == "Completed":
        return Reply.json(200, {"instanceId": instance.id, **instance.output}, applied)
    # Neither the record nor the partner is to blame for what was broken off, or was terminated.
    status = 500
    if instance.status == "Failed" and not instance.is_broken_off:
        status = {"rejected": 422, "deferred": 504}.get(instance.custom_status["outcome"], 500)
    return problem(status, f"The delivery {instance.id} failed: {instance.output}", headers=applied)


def _record(response: ApiResponse) -> Reply:
    """Give the partner's record, or say what the partner's answer means to our caller."""
    if response.is_success and response.is_readable and response.content is not None:
        return Reply.json(200, response.content)
    if response.is_success and response.status != NO_CONTENT:
        return problem(502, f"The partner answered {response.status} with a body that is not JSON.")
    if response.status in {NO_CONTENT, 404, 410}:
        return problem(404, "The partner has no business with this external id.")
    if response.status in {429, 503}:
        detail = f"The partner answered {response.status}: it takes no calls now."
        return problem(503, detail, retry_after=response.retry_after)
    return problem(504 if response.status == 504 else 502, f"The partner answered {response.status}.")  # noqa: PLR2004, the same status on both sides


def _settings_problem(exc: SettingsError) -> Reply:
    return problem(503, "The app settings are not usable.", errors=[Fault("", sentence) for sentence in exc.problems])


def _health(status: int) -> Reply:
    return Reply.json(status, {"status": "ok" if status == 200 else "unavailable"}, {"cache-control": "no-store"})  # noqa: PLR2004, one of the two
