"""From a request to checked records. One bad record, and nothing is started.

What breaks a rule raises a `RefusedError`: 400 a text that is not JSON, 411 a chunked body, 413 too much of it, 415 its
media type or encoding, 422 a record that breaks a rule of its model.
"""

from __future__ import annotations

import codecs
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from shared.errors import BodyTooLargeError, ContentEncodingError, Fault, InvalidRecordError, JsonError, RefusedError
from shared.rules.content_encoding import ACCEPTED, decoded_body
from shared.rules.record import IDEMPOTENCY_KEY, MAX_BYTES, CheckedRecord, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.http.messages import Request
    from shared.resource import Resource

MAX_RECORDS = 1_000
MAX_BATCH_BYTES = 1024 * 1024
MAX_FAULTS = 100
"""Faults that an answer names: a thousand bad records need not fill it."""

JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)


class IntakeBudget:
    """Bounds the bytes of the request bodies that are in work at one time in this process."""

    def __init__(self, limit: int = 24 * MAX_BATCH_BYTES) -> None:
        self._free = limit

    @contextmanager
    def hold(self, request: Request) -> Iterator[None]:
        """Hold the bytes of a request's body during the block; raises RefusedError (429) if there is no room."""
        # A compressed body takes what it may unpack to.
        size = MAX_BATCH_BYTES if request.headers.get("content-encoding") else len(request.body)
        if size > self._free:
            raise RefusedError("busy", "The app is working on as many requests as it can hold.", retry_after=1)
        self._free -= size
        try:
            yield
        finally:
            self._free += size


def read_one(request: Request, resource: Resource) -> CheckedRecord:
    """Read the one record in a request's body."""
    _check_media_type(request, [JSON])
    body = _body(request, MAX_BYTES)
    try:
        return read_record(resource, body)
    except JsonError as exc:
        raise _malformed("The body", exc) from None
    except InvalidRecordError as exc:
        raise RefusedError("invalid-record", f"The record breaks a rule: {exc}.", errors=exc.faults) from None


def read_batch(request: Request, resource: Resource) -> list[CheckedRecord]:
    """Read the records in a request's body: a JSON array, or NDJSON with one record in each line."""
    media_type = _check_media_type(request, [JSON, *NDJSON])
    body = _body(request, MAX_BATCH_BYTES).removeprefix(codecs.BOM_UTF8)
    texts = list(filter(bytes.strip, body.split(b"\n"))) if media_type in NDJSON else _elements(body)
    if not texts:
        raise RefusedError("invalid-record", "The batch has no records.")
    # Before any is decoded: a megabyte of empty records would take seconds.
    if len(texts) > MAX_RECORDS:
        raise RefusedError("too-large", f"The batch has {len(texts)} records, more than the {MAX_RECORDS} allowed.")
    records: list[CheckedRecord] = []
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for index, text in enumerate(map(bytes, texts)):
        try:
            record = read_record(resource, text)
        except JsonError as exc:
            raise _malformed(f"Record {index}", exc, f"/{index}") from None
        except InvalidRecordError as exc:
            faults += [Fault(f"/{index}{fault.pointer}", fault.detail) for fault in exc.faults]
            continue
        if (earlier := first.setdefault(record.id, index)) != index:
            faults.append(Fault(f"/{index}/{resource.id_member}", f"is the same as that of record {earlier}"))
        records.append(record)
    if faults:
        more = "" if len(faults) <= MAX_FAULTS else f" The first {MAX_FAULTS} are named."
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        detail = f"The batch has {count}.{more} Nothing was started."
        raise RefusedError("invalid-record", detail, errors=faults[:MAX_FAULTS])
    return records


def idempotency_key(request: Request) -> str | None:
    """Return the request's Idempotency-Key, None where it has none."""
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise RefusedError("malformed", "The header Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return key


def _check_media_type(request: Request, media_types: Sequence[str]) -> str:
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    # RFC 6839 section 3.1: "+json" marks any media type whose syntax is JSON.
    if media_type not in media_types and not (media_type.startswith("application/") and media_type.endswith("+json")):
        got = f"not {media_type[:100]!r}" if media_type else "and none is given"
        detail = f"The Content-Type must be {' or '.join([*media_types, 'application/*+json'])}, {got}."
        raise RefusedError("media-type", detail, headers={"accept": ", ".join(media_types)})
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        detail = f"The charset must be utf-8, not {charset[1][:100]!r}."
        raise RefusedError("media-type", detail, headers={"accept": ", ".join(media_types)})
    return media_type


def _body(request: Request, limit: int) -> bytes:
    """Return the request's body decoded, of at most `limit` bytes."""
    if not request.body and "chunked" in request.headers.get("transfer-encoding", "").lower():
        detail = "The body was sent in chunks, which the Functions host does not hand on. Send a Content-Length."
        raise RefusedError("length-required", detail)
    encoding = request.headers.get("content-encoding")
    try:
        return decoded_body(request.body, encoding, limit)
    except BodyTooLargeError:
        size = "" if encoding else f"{len(request.body)} bytes, "
        raise RefusedError("too-large", f"The body has {size}more than the {limit} bytes allowed.") from None
    except ContentEncodingError as exc:
        detail = f"The body cannot be decoded: {exc}."
        raise RefusedError("content-encoding", detail, headers={"accept-encoding": ACCEPTED}) from None


def _elements(body: bytes) -> Sequence[bytes | msgspec.Raw]:
    """Return the texts of an array's records: they are JSON, though maybe not as this app accepts it."""
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        detail = f"The body must be a JSON array of records, or {NDJSON[0]}. One record goes to the route above."
        raise RefusedError("invalid-record", detail) from None
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise _malformed("The body", JsonError(f"is not JSON: {exc}")) from None


def _malformed(what: str, exc: JsonError, pointer: str = "") -> RefusedError:
    detail = exc.faults[0].detail
    return RefusedError("malformed", f"{what} {detail}. Nothing was started.", errors=[Fault(pointer, detail)])
