"""The partner's business API: what it answers to a request, with no regard to faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sandbox.partner.answers import DUPLICATE_EXTERNAL_ID, KEY_IN_PROGRESS, KEY_REUSED, Answer, problem
from sandbox.partner.call import LOOKUP_PATH
from sandbox.partner.tokens import IssuedToken

if TYPE_CHECKING:
    from sandbox.partner.call import Call
    from sandbox.partner.config import PartnerConfig
    from sandbox.partner.records import Payload, StoredRecord
    from sandbox.partner.state import State

MAX_EXTERNAL_ID = 128
MAX_NAME = 256
# Visible ASCII, at most 255 of it.
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def post_business(call: Call, state: State, config: PartnerConfig) -> Answer:
    """Store the record and answer 201, or say why not."""
    token = _authorise(call, state)
    if isinstance(token, Answer):
        return token
    payload = _check(call)
    if isinstance(payload, Answer):
        return payload
    key = call.header(b"idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        return problem(400, "Bad Idempotency-Key", "Idempotency-Key must be 1 to 255 visible ASCII characters")
    if key is not None and config.idempotency == "honour":
        answer = _known(key, payload, state)
        if answer is not None:
            return answer
    external_id = payload["externalId"]
    known = state.records.find(external_id) is not None
    if known and config.unique_external_id:
        return problem(
            409,
            "Duplicate external id",
            f"A record with the external id {external_id!r} exists",
            kind=DUPLICATE_EXTERNAL_ID,
        )
    record = state.records.store(payload, idempotency_key=key, token=token.number)
    state.counters.records_stored += 1
    state.counters.duplicates += known
    if key is not None and config.idempotency == "honour":
        state.keys.start(key, payload, record)
        call.reserved_key = key
    return _created(record)


def get_business(call: Call, state: State, _config: PartnerConfig) -> Answer:
    """Answer the record of the external id in the path, or 404."""
    token = _authorise(call, state)
    if isinstance(token, Answer):
        return token
    external_id = call.external_id
    record = None if external_id is None else state.records.find(external_id)
    if record is None:
        return problem(404, "No such business", "There is no business with this external id")
    return Answer(status=200, body=record.body)


def _authorise(call: Call, state: State) -> IssuedToken | Answer:
    """Give the request's good access token, or the 401 of RFC 6750 section 3."""
    value = call.bearer_token
    if value is None:
        detail, challenge = "An access token is required", 'Bearer realm="sandbox"'
    else:
        token = state.tokens.check(value)
        if isinstance(token, IssuedToken):
            return token
        detail = f"The access token is {token}"
        challenge = f'Bearer realm="sandbox", error="invalid_token", error_description="{detail}"'
    state.counters.unauthorised += 1
    return problem(401, "Unauthorised", detail, headers=(("www-authenticate", challenge),))


def _check(call: Call) -> Payload | Answer:
    """Give the record that was sent, or an answer that names every rule it breaks."""
    media_type = call.media_type
    if media_type != "application/json" and not media_type.endswith("+json"):
        return problem(415, "Unsupported media type", f"Expected application/json, not {media_type!r}")
    try:
        payload: Any = call.payload
    except ValueError as exc:
        return problem(400, "Malformed JSON", str(exc))
    if not isinstance(payload, dict):
        return problem(422, "Invalid record", "Expected a JSON object", errors=[{"pointer": "", "detail": "object"}])
    errors = [
        *_text_errors(payload, "externalId", MAX_EXTERNAL_ID),
        *_text_errors(payload, "name", MAX_NAME),
    ]
    if "id" in payload:
        # Neither losing the client's member nor letting it choose the id would be right.
        errors.append({"pointer": "/id", "detail": "must not be sent: this API gives the id"})
    if errors:
        return problem(422, "Invalid record", "The record breaks a rule of this API", errors=errors)
    return payload


def _text_errors(payload: Payload, member: str, limit: int) -> list[dict[str, str]]:
    value = payload.get(member)
    if isinstance(value, str) and 1 <= len(value) <= limit:
        return []
    return [{"pointer": f"/{member}", "detail": f"must be a text of 1 to {limit} characters"}]


def _known(key: str, payload: Payload, state: State) -> Answer | None:
    """Give the answer to a key that was seen before, as the IETF draft on the Idempotency-Key header has it."""
    record = state.keys.done(key)
    if record is None:
        return None
    if not state.keys.is_of(key, payload):
        return problem(422, "Idempotency-Key reused", "The key came with another payload before", kind=KEY_REUSED)
    if state.keys.is_in_progress(key):
        return problem(409, "Request in progress", "The first request with the key is under way", kind=KEY_IN_PROGRESS)
    state.counters.replays += 1
    return _created(record, ("idempotency-replayed", "true"))


def _created(record: StoredRecord, *headers: tuple[str, str]) -> Answer:
    location = LOOKUP_PATH + quote(record.external_id, safe="")
    return Answer(status=201, body=record.body, headers=(("location", location), *headers))
