"""Callers learn that authentication fails, not why: what servers say about it is for the operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.errors import SettingsError, TokenError, TokenRejectedError, TokenUnavailableError
from shared.http import health, routes
from shared.http.request import Request
from shared.resource import ApiResponse, ProblemDetails
from tests.models import PARCEL

if TYPE_CHECKING:
    from shared.client.resource_api import ResourceApi
    from shared.http.request import Reply

REFUSED: list[TokenError] = [
    TokenRejectedError("invalid_client"),
    TokenRejectedError("unauthorized_client", "AADSTS700016: tenant 8f2 has no application 4c1", status=400),
    TokenRejectedError("invalid_scope", "no such scope: https://partner.example/.default", status=401),
]
UNAVAILABLE: list[TokenError] = [
    TokenUnavailableError("https://login.partner.example/token could not be reached: ConnectError"),
    TokenUnavailableError("the token endpoint answered 500", status=500),
]


async def shown(result: ApiResponse | Exception) -> Reply:
    """Return the reply to a caller who asks for a record when the look-up has this result."""

    class Api:
        async def look_up(self, *_: object) -> ApiResponse:
            if isinstance(result, Exception):
                raise result
            return result

    async def api() -> ResourceApi:
        return Api()  # type: ignore[return-value]  # only its look-up is used

    return await routes.get_record(Request("GET", "https://relay.example/api/parcels/P-1", {}), PARCEL, api)


@pytest.mark.parametrize("errors", [REFUSED, UNAVAILABLE], ids=["refused", "unavailable"])
async def test_callers_do_not_learn_why_there_is_no_token(errors: list[TokenError]) -> None:
    replies = [await shown(error) for error in errors]
    assert {(reply.status, reply.body) for reply in replies} == {(503, replies[0].body)}


@pytest.mark.parametrize("status", [401, 403])
async def test_callers_learn_only_the_status_with_which_the_partner_refuses_a_token(status: int) -> None:
    reply = await shown(ApiResponse(status, {}, problem=ProblemDetails(detail="the partner's own words")))
    assert reply.status == 502
    assert str(status).encode() in reply.body
    assert b"own words" not in reply.body


def test_anybody_learns_only_that_the_settings_are_wrong() -> None:
    def check() -> None:
        raise SettingsError(["BUSINESS_API_URL is missing", "two of four are set"])

    reply = health.get_health(check)
    assert (reply.status, reply.body) == (503, b'{"status":"unavailable"}')
