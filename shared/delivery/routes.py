"""What the app's routes do: from a request to a reply, one function a route."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.delivery import intake
from shared.delivery.durable_client import accepted, start_once, wait_until_finished
from shared.delivery.exchange import Reply
from shared.delivery.preference import preferred_wait
from shared.delivery.problem import ProblemError, problem
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
    from collections.abc import Awaitable, Callable

    from shared.api.business_api import BusinessApi
    from shared.api.responses import ApiResponse
    from shared.delivery.durable_client import DurableClient, Instance
    from shared.delivery.exchange import Request
    from shared.settings import DeliverySettings, Settings

logger = logging.getLogger(__name__)

DELIVER_BUSINESS = "DeliverBusiness"


async def post_business(request: Request, client: DurableClient, settings: Callable[[], Settings]) -> Reply:
    """Take a business, and start its delivery: 202 with the links to watch it, or with `Prefer: wait` its result."""
    try:
        business = intake.read_business(request)
        instance_id = intake.instance_id(request)
        delivery = settings().delivery
        input_ = {"business": business.to_json(), **_terms(delivery)}
        await start_once(client, DELIVER_BUSINESS, instance_id, input_)
        logger.info("delivery accepted", extra={"instance_id": instance_id, "external_id": business.external_id})
        wait = preferred_wait(request.headers)
        finished = await wait_until_finished(client, instance_id, wait) if wait else None
    except ProblemError as exc:
        return exc.reply
    except SettingsError as exc:
        return _settings_problem(exc)
    return _result(finished) if finished else accepted(client, request, instance_id)


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
        return problem(503, str(exc), retry_after=exc.retry_after)
    except (TokenRejectedError, ApiConnectError) as exc:
        return problem(502, str(exc))
    except ApiInterruptedError as exc:
        return problem(504, str(exc))


async def get_health(request: Request, settings: Callable[[], Settings]) -> Reply:
    """Say whether the settings are valid, and nothing else: anybody may ask.

    With `?deep=true` it sends the caller on to the route that wants a key: only the host can check one.
    """
    if request.query.get("deep", "").lower() in {"true", "1"}:
        parts = urlsplit(request.url)
        query = "&".join(pair for pair in parts.query.split("&") if pair.startswith("code="))
        location = f"{parts.path.rstrip('/')}/deep" + (f"?{query}" if query else "")
        return Reply.json(307, {"status": "elsewhere"}, {"location": location, "cache-control": "no-store"})
    try:
        settings()
    except SettingsError:
        return _health(503)
    return _health(200)


async def get_deep_health(check_token: Callable[[], Awaitable[None]]) -> Reply:
    """Say whether the settings are valid and a token can be had; for those who have a key, also why not."""
    try:
        await check_token()
    except SettingsError as exc:
        return _settings_problem(exc)
    except (TokenRejectedError, TokenUnavailableError) as exc:
        return problem(503, str(exc))
    return _health(200)


def _terms(delivery: DeliverySettings) -> dict[str, object]:
    """Give the terms of a delivery: an orchestrator may not read settings, and keeps those it began with."""
    return {"retry": delivery.retry.to_json(), "lookUp": delivery.look_up}


def _result(instance: Instance) -> Reply:
    """Give the result of a finished delivery that its caller has waited for."""
    applied = {"preference-applied": "wait"}
    if instance.status == "Completed":
        return Reply.json(200, {"instanceId": instance.id, **instance.output}, applied)
    last = instance.custom_status if isinstance(instance.custom_status, dict) else {}
    rejected = last.get("outcome") == "rejected"
    return problem(422 if rejected else 504, f"The delivery {instance.id} failed: {instance.output}", headers=applied)


def _record(response: ApiResponse) -> Reply:
    """Give the partner's record, or say what the partner's answer means to our caller."""
    if response.is_success and response.is_readable and response.content is not None:
        return Reply.json(200, response.content)
    if response.is_success:
        return problem(502, f"The partner answered {response.status} with a body that is not JSON.")
    if response.status in {404, 410}:
        return problem(404, "The partner has no business with this external id.")
    if response.status in {429, 503}:
        detail = f"The partner answered {response.status}: it takes no calls now."
        return problem(503, detail, retry_after=response.retry_after)
    return problem(504 if response.status == 504 else 502, f"The partner answered {response.status}.")  # noqa: PLR2004, the same status on both sides


def _settings_problem(exc: SettingsError) -> Reply:
    return problem(503, "The app settings are not usable.", errors=[Fault("", sentence) for sentence in exc.problems])


def _health(status: int) -> Reply:
    return Reply.json(status, {"status": "ok" if status == 200 else "unavailable"}, {"cache-control": "no-store"})  # noqa: PLR2004, one of the two
