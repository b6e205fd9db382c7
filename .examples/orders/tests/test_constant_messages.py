"""What a caller is told when authentication fails does not depend on why: servers' words are for the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.api.responses import ApiResponse, ProblemDetails
from shared.delivery import routes
from shared.delivery.exchange import Request
from shared.errors import SettingsError, TokenRejectedError, TokenUnavailableError

if TYPE_CHECKING:
    from shared.api.business_api import BusinessApi
    from shared.delivery.exchange import Reply
    from shared.settings import Settings

REFUSED = [
    TokenRejectedError("invalid_client"),
    TokenRejectedError("unauthorized_client", "AADSTS700016: tenant 8f2 has no application 4c1", status=400),
    TokenRejectedError("invalid_scope", "no such scope: https://partner.example/.default", status=401),
]
UNAVAILABLE = [
    TokenUnavailableError("https://login.partner.example/token could not be reached: ConnectError"),
    TokenUnavailableError("the token endpoint answered 500", status=500),
]


class _Partner:
    """Fails as it is told, or answers with a status."""

    def __init__(self, fault: Exception | None = None, status: int = 200) -> None:
        self._fault, self._status = fault, status

    async def get_business(self, external_id: str) -> ApiResponse:
        if self._fault is not None:
            raise self._fault
        words = ProblemDetails(detail=f"the words of the partner about {external_id}")
        return ApiResponse(self._status, {}, problem=words)


async def shown(partner: _Partner) -> Reply:
    async def api() -> BusinessApi:
        return partner  # type: ignore[return-value]  # all that is asked of it

    request = Request("https://app.example/api/businesses/b-1", {}, params={"externalId": "b-1"})
    return await routes.get_business(request, api)


async def deep_health(fault: Exception) -> Reply:
    async def check() -> None:
        raise fault

    return await routes.get_deep_health(check)


async def health(fault: SettingsError) -> Reply:
    def settings() -> Settings:
        raise fault

    return await routes.get_health(Request("https://app.example/api/health", {}), settings)


@pytest.mark.parametrize(("faults", "status"), [(REFUSED, 502), (UNAVAILABLE, 503)], ids=["refused", "unavailable"])
async def test_a_record_that_cannot_be_shown_for_want_of_a_token_says_no_more(
    faults: list[Exception], status: int
) -> None:
    replies = [await shown(_Partner(fault)) for fault in faults]
    assert {(reply.status, reply.body) for reply in replies} == {(status, replies[0].body)}


@pytest.mark.parametrize("faults", [REFUSED, UNAVAILABLE], ids=["refused", "unavailable"])
async def test_deep_health_says_which_is_at_fault_and_no_more(faults: list[Exception]) -> None:
    replies = [await deep_health(fault) for fault in faults]
    assert {(reply.status, reply.body) for reply in replies} == {(503, replies[0].body)}


async def test_a_refusal_and_an_outage_of_the_token_endpoint_are_told_apart() -> None:
    assert (await deep_health(REFUSED[0])).body != (await deep_health(UNAVAILABLE[0])).body


@pytest.mark.parametrize("status", [401, 403])
async def test_of_a_token_that_the_partner_refuses_the_status_alone_is_told(status: int) -> None:
    reply = await shown(_Partner(status=status))
    assert (reply.status, b"words of the partner" in reply.body) == (502, False)
    assert f"The partner answered {status}.".encode() in reply.body


async def test_anybody_learns_the_same_of_whatever_is_wrong_with_the_settings() -> None:
    replies = [await health(SettingsError([name])) for name in ("BUSINESS_API_URL is missing", "two of four are set")]
    assert {(reply.status, reply.body) for reply in replies} == {(503, b'{"status":"unavailable"}')}
