"""The partner's API for records: what it answers to a post and a look-up, apart from faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox.partner.answers import DUPLICATE_ID, KEY_IN_USE, KEY_REUSED, Answer, encode, problem, retry_after
from sandbox.partner.faults import Challenge, InUse, Late
from sandbox.partner.records import put
from sandbox.partner.tokens import IssuedToken
from shared.errors import InvalidRecordError, JsonError
from shared.rules.record import IDEMPOTENCY_KEY, read_record

if TYPE_CHECKING:
    from sandbox.partner.call import Call
    from sandbox.partner.records import StoredRecord
    from sandbox.partner.state import PartnerConfig
    from shared.resource import Resource
    from shared.rules.record import CheckedRecord


def honours_keys(resource: Resource, config: PartnerConfig) -> bool:
    """Tell whether a repeated idempotency key gets the first answer again."""
    if config.idempotency == "described":
        return resource.honours_idempotency_key
    return config.idempotency == "honour"


def post_record(call: Call, resource: Resource, config: PartnerConfig) -> Answer:
    """Store the record and answer 201, or say why not."""
    token = _authorise(call)
    if isinstance(token, Answer):
        return token
    record = _read(call, resource)
    if isinstance(record, Answer):
        return record
    site, key = call.site, call.idempotency_key
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        return problem(400, "Bad idempotency key", "The idempotency key must be 1 to 255 visible ASCII characters")
    honoured = key if key is not None and honours_keys(resource, config) else None
    if honoured is not None and (answer := _known(call, honoured, record)):
        return answer
    earlier = site.records.find(resource, record.id)
    if earlier and resource.post.method == "PUT":
        stored = earlier[0]
        stored.text, stored.token = record.text, token.number
        site.counters.replaced += 1
    elif earlier and config.unique_ids:
        return problem(409, "Duplicate id", f"A record with the id {record.id!r} exists", kind=DUPLICATE_ID)
    else:
        stored = site.records.store(resource, record, key=key, token=token.number, now=call.state.clock())
        site.counters.records_stored += 1
        site.counters.duplicates += bool(earlier)
    if honoured is not None:
        site.keys.keep(honoured, record.text, stored)
    return _created(call, stored, 200 if earlier and resource.post.method == "PUT" else 201)


def get_record(call: Call, resource: Resource) -> Answer:
    """Answer the record with the id of the path, or the list of those with the id of the query."""
    token = _authorise(call)
    if isinstance(token, Answer):
        return token
    look_up = resource.look_up
    if look_up is None or call.path_id is None:
        return problem(404, "Not found", "There is no look-up of these records")
    late = call.state.plan.quirk(Late, call.target)
    newest = call.state.clock() - (late.seconds if late else 0.0)
    records = [record for record in call.site.records.find(resource, call.path_id) if record.stored_at <= newest]
    content: Any
    if look_up.items or "{id}" not in look_up.path:
        content = [record.body() for record in records]
    elif records:
        content = records[0].body()
    else:
        return problem(404, "No such record", "There is no record with this id")
    return Answer(status=200, body=encode(put({}, look_up.items, content) if look_up.items else content))


def _authorise(call: Call) -> IssuedToken | Answer:
    """Return the request's good access token, or the challenge of RFC 6750 section 3."""
    value = call.bearer_token
    token = call.site.tokens.check(value) if value is not None else None
    if isinstance(token, IssuedToken):
        return token
    call.site.counters.unauthorised += 1
    if token is None:
        headers = (("www-authenticate", 'Bearer realm="sandbox"'),)
        return problem(401, "Unauthorised", "An access token is required", headers=headers)
    fault = call.state.plan.quirk(Challenge, call.target) or Challenge()
    detail = f"The access token is {token}"
    error = "" if fault.error is None else f', error="{fault.error}", error_description="{detail}"'
    headers = (("www-authenticate", f'Bearer realm="sandbox"{error}'),)
    return problem(fault.status, "Unauthorised", detail, headers=headers)


def _read(call: Call, resource: Resource) -> CheckedRecord | Answer:
    """Return the record that was sent, or an answer that names every rule of the model that it breaks."""
    media_type = call.media_type
    if media_type not in {"application/json", resource.post.media_type} and not media_type.endswith("+json"):
        return problem(415, "Unsupported media type", f"Expected {resource.post.media_type}, not {media_type!r}")
    try:
        record = read_record(resource, call.body)
    except JsonError as exc:
        return problem(400, "Malformed JSON", f"The body {exc}")
    except InvalidRecordError as exc:
        errors = [{"pointer": fault.pointer, "detail": fault.detail} for fault in exc.faults]
        return problem(422, "Invalid record", "The record breaks a rule of this API", errors=errors)
    if call.path_id is not None and call.path_id != record.id:
        return problem(422, "Invalid record", f"The path names {call.path_id!r}, the record {record.id!r}")
    return record


def _known(call: Call, key: str, record: CheckedRecord) -> Answer | None:
    """Return the answer to a key that was seen before, as the IETF draft on the Idempotency-Key header has it."""
    keys = call.site.keys
    stored = keys.done(key)
    if stored is not None and not keys.is_of(key, record.text):
        return problem(422, "Idempotency key reused", "The key came with another record before", kind=KEY_REUSED)
    if keys.is_in_progress(key) and call.reserved_key != key:
        fault = call.state.plan.quirk(InUse, call.target)
        return problem(
            409,
            "Request in progress",
            "The first request with the key is under way",
            kind=KEY_IN_USE,
            headers=retry_after(fault.retry_after if fault else None),
            code="idempotency_key_in_use",
        )
    if stored is None:
        return None
    call.site.counters.replays += 1
    return _created(call, stored, 201, ("idempotency-replayed", "true"))


def _created(call: Call, record: StoredRecord, status: int, *headers: tuple[str, str]) -> Answer:
    look_up = record.resource.look_up
    if look_up is not None:
        headers = (("location", call.site.base_path + look_up.target(record.id)), *headers)
    return Answer(status=status, body=encode(record.body()), headers=headers)
