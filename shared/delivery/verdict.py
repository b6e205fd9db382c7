"""The rules by which a response of the partner becomes an outcome. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shared.auth.challenges import may_concern_token
from shared.delivery.custom_object import custom_object_fault
from shared.delivery.outcome import Outcome
from shared.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.api.business import Business
    from shared.api.responses import ApiResponse

# RFC 9110 section 15.5, RFC 8470 section 5.2, RFC 6585 section 4: "not now". The server has not acted on the request.
NOT_NOW = {408, 425, 429}
CONFLICT = 409
# RFC 9110 section 15.3.5: the answer to a look-up by a partner that knows of nothing to show.
NO_CONTENT = 204
NOT_IMPLEMENTED = 501
# A partner that refuses a fresh token is most likely changing its keys: so many seconds from a delivery's start it is
# given time. After that someone has to mend the settings.
TOKEN_PATIENCE = 600.0
# A custom status holds 8,192 UTF-16 code units; so many bytes of the partner's words leave room for the rest of it.
MAX_PROBLEM = 4_000
# So many differing members are named, each by so many characters.
MAX_NAMES, MAX_NAME = 10, 60


def judge_post(business: Business, response: ApiResponse, age: float) -> Outcome:
    """Judge the response to a POST of `business`, `age` seconds after its delivery began."""
    if response.is_success and response.is_readable:
        return Outcome("created", business.external_id, response.status)
    if response.is_success:
        return _deferred(business, response, "with a body that is not JSON", is_uncertain=True)
    # A 409 that names a time to come back is about an attempt of ours that is still being worked on.
    is_in_work = response.status == CONFLICT and response.retry_after is not None
    if response.status in NOT_NOW or is_in_work:
        return _deferred(business, response, "that is: not now", is_uncertain=is_in_work)
    if response.status >= 500:  # noqa: PLR2004, RFC 9110 section 15.6
        return _deferred(business, response, "a fault of its own", is_uncertain=True)
    if _is_token_refused(response) and age < TOKEN_PATIENCE:
        return _deferred(business, response, "a fresh access token is refused")
    return _rejected(business, response)


def judge_look_up(business: Business, response: ApiResponse) -> Outcome | None:
    """Judge the response to a look-up of `business` by its external id; None where the partner shows no such record."""
    if response.is_success and isinstance(response.content, dict):
        differing = differing_members(business.to_json(), response.content)
        if not differing:
            return Outcome("exists", business.external_id, response.status)
        named = ", ".join(shortened(name, MAX_NAME) for name in differing[:MAX_NAMES])
        more = f" and {len(differing) - MAX_NAMES} more" if len(differing) > MAX_NAMES else ""
        reason = f"The partner has this external id with other content; different: {named}{more}"
        return Outcome("rejected", business.external_id, response.status, reason)
    if response.is_success and response.status != NO_CONTENT:
        return _deferred(business, response, "to a look-up, with a body that is not a JSON object")
    if response.status in NOT_NOW or (response.status >= 500 and response.status != NOT_IMPLEMENTED):  # noqa: PLR2004, RFC 9110 section 15.6
        return _deferred(business, response, "to a look-up")
    # Not there, or no look-up for us (401, 403, 405, 501): then the post and its idempotency key must do.
    return None


def differing_members(sent: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Name the members that were sent and are not there with the same value. Others may have been added."""
    return [name for name, value in sent.items() if name not in found or not _is_same(value, found[name])]


def _is_same(sent: object, found: object) -> bool:
    """Compare as JSON: 1 is 1.0, but true is not 1; what the partner has added to an object is no difference."""
    if isinstance(sent, dict) and isinstance(found, dict):
        return not differing_members(sent, found)
    if isinstance(sent, list) and isinstance(found, list):
        return len(sent) == len(found) and all(map(_is_same, sent, found))
    return isinstance(sent, bool) == isinstance(found, bool) and sent == found


def _is_token_refused(response: ApiResponse) -> bool:
    return response.status == 401 and may_concern_token([response.headers.get("www-authenticate", "")])  # noqa: PLR2004, RFC 6750 section 3.1


def _problem(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Give the partner's own words, as many of them as there is room for."""
    kept: dict[str, Any] = {}
    if custom_object_fault(problem):
        return kept
    room = MAX_PROBLEM
    for name, value in problem.items():
        size = len(msgspec.json.encode({name: value}))
        if size <= room:
            kept[name] = value
            room -= size
    return kept


def _deferred(business: Business, response: ApiResponse, words: str, *, is_uncertain: bool = False) -> Outcome:
    return Outcome(
        "deferred",
        business.external_id,
        response.status,
        f"The partner answered {response.status}, {words}",
        _problem(response.problem.to_json()) if response.problem else {},
        response.retry_after,
        is_uncertain,
    )


def _rejected(business: Business, response: ApiResponse) -> Outcome:
    problem = response.problem.to_json() if response.problem else {}
    words = ": ".join(str(problem[name]) for name in ("title", "detail") if name in problem)
    if not words and problem:
        words = msgspec.json.encode(problem).decode()
    if 300 <= response.status < 400:  # noqa: PLR2004, RFC 9110 section 15.4
        words = "redirects are not followed, the access token is for one origin"
    reason = f"The partner answered {response.status}" + (f": {words}" if words else "")
    return Outcome("rejected", business.external_id, response.status, reason, _problem(problem))
