"""The parts of an OpenAPI operation: parameters, answers, problems, with their headers and examples."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from shared.delivery.batch_intake import JSON
from shared.delivery.openapi_schemas import REF
from shared.delivery.preference import MAX_WAIT

PROBLEM_JSON = "application/problem+json"
# What each problem says, and an example of its detail.
PROBLEMS = {
    400: ("A header, an id or the JSON of the body is malformed.", "The body is not JSON: Expecting value."),
    404: ("There is nothing with this id.", "There is no batch with this id."),
    409: (
        "The Idempotency-Key was used for another payload, or the batch has nothing to redeliver.",
        "The Idempotency-Key was used for another payload.",
    ),
    413: ("The body, or the batch, is too large.", "The batch has 1001 records, more than the 1000 allowed."),
    415: ("The body has another media type.", "The Content-Type must be application/json, not 'text/plain'."),
    422: (
        "A record breaks a rule, and nothing was started; with `Prefer: wait` also: the partner has rejected it.",
        "The business breaks a rule: /name: is missing.",
    ),
    500: ("With `Prefer: wait`: the delivery was ended, or has failed by a defect.", "The delivery key-… failed."),
    502: ("The partner, or its token endpoint, refuses the app.", "The partner answered 403."),
    503: ("Not now: the app's settings, its storage or the partner.", "The app settings are not usable."),
    504: ("The partner has not answered in time.", "The API gave no whole response: ReadTimeout"),
}


def header(description: str, *, required: bool = True, **schema: Any) -> dict[str, Any]:  # noqa: ANN401, JSON Schema
    """Give a header of an answer; `schema` says more of its text."""
    return {"description": description, "required": required, "schema": {"type": "string", **schema}}


RETRY_AFTER = header("Seconds to wait before the next request.", type="integer", minimum=0)
LOCATION = header("Where the delivery can be watched.", format="uri")
NO_STORE = header("`no-store`.", const="no-store")
PREFERENCE_APPLIED = header("The caller has waited for this (RFC 7240).", const="wait")
ACCEPT = header("The media types that are taken.")


def parameter(place: str, name: str, **members: Any) -> dict[str, Any]:  # noqa: ANN401, OpenAPI's own members
    """Give a parameter of an operation, in the "header", "path" or "query"."""
    return {"name": name, "in": place, "required": place == "path", **members}


IDEMPOTENCY_KEY = parameter(
    "header",
    "Idempotency-Key",
    description="Names the delivery: the same key and payload start nothing twice. Without it, each request is new.",
    schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
    example="8e03978e-40d5-43dd-bc93-6894a57f9324",
)
PREFER = parameter(
    "header",
    "Prefer",
    description=f"`wait=N` (RFC 7240): answer with the result if it is there within N seconds, {MAX_WAIT:g} at most.",
    schema={"type": "string"},
    example="wait=20",
)


def content(name: str, example: object, media_type: str = JSON) -> dict[str, Any]:
    """Give a body: a schema of the components, with an example if there is one."""
    return {media_type: body({"$ref": REF.format(name=name)}, example)}


def body(schema: dict[str, Any], example: object) -> dict[str, Any]:
    """Give a schema with an example, or without one if that is None."""
    return {"schema": schema} if example is None else {"schema": schema, "example": example}


def answer(description: str, content: dict[str, Any], **headers: dict[str, Any]) -> dict[str, Any]:
    """Give an answer with its body; underscores in a header's name stand for hyphens."""
    named = {name.replace("_", "-"): header for name, header in headers.items()}
    return {"description": description, "headers": named, "content": content}


def _problem(status: int, *, may_wait: bool) -> dict[str, Any]:
    description, detail = PROBLEMS[status]
    example = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    headers: dict[str, Any] = {}
    if status == 503:  # noqa: PLR2004, RFC 9110 section 15.6.4
        headers["Retry_After"] = RETRY_AFTER | {"required": False}
    if status == 415:  # noqa: PLR2004, RFC 9110 section 15.5.16
        headers["Accept"] = ACCEPT | {"required": False}
    if may_wait and status in {422, 500, 504}:
        headers["Preference_Applied"] = PREFERENCE_APPLIED | {"required": False}
    return answer(description, content("Problem", example, PROBLEM_JSON), **headers)


def operation(
    id_: str,
    summary: str,
    answers: dict[int, Any],
    *problems: int,
    **members: Any,  # noqa: ANN401, OpenAPI's own members
) -> dict[str, Any]:
    """Give an operation with its answers; the host answers 401 where the function key is missing or wrong."""
    may_wait = PREFER in members.get("parameters", ())
    responses = answers | {status: _problem(status, may_wait=may_wait) for status in problems}
    if members.get("security") != []:
        responses[401] = {"description": "The function key is missing or wrong. The host's own answer, with no body."}
    named = {str(status): responses[status] for status in sorted(responses)}
    return {"operationId": id_, "summary": summary, **members, "responses": named}
