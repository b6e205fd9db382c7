"""From a request to checked records. One bad record, and nothing is started."""

from __future__ import annotations

import codecs
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from shared.errors import BodyTooLargeError, ContentEncodingError, Fault, InvalidRecordError, JsonError
from shared.http.problem import refuse
from shared.rules import strict_json
from shared.rules.content_encoding import ACCEPTED, decoded_body
from shared.rules.record import IDEMPOTENCY_KEY, MAX_BYTES, CheckedRecord, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from shared.http.request import Request
    from shared.resource import Resource

MAX_RECORDS = 1_000
MAX_BATCH_BYTES = 1024 * 1024
MAX_FAULTS = 100
"""Faults that an answer names: a thousand bad records need not fill it."""

JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
# RFC 6839 section 3.1: "+json" marks any media type whose syntax is JSON.
_JSON_SUFFIX = "+json"
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)


class IntakeBudget:
    """Bounds the bytes of the request bodies that are in work at one time in this process."""

    def __init__(self, limit: int = 24 * MAX_BATCH_BYTES) -> None:
        self._free = limit

    @contextmanager
    def hold(self, request: Request) -> Iterator[None]:
        """Hold the bytes of a request's body during the block.

        Raises:
            ProblemError: 429, the process holds as much as it can.
        """
        # A compressed body takes what it may unpack to.
        size = MAX_BATCH_BYTES if request.headers.get("content-encoding") else len(request.body)
        if size > self._free:
            raise refuse("busy", "The app is working on as many requests as it can hold.", retry_after=1)
        self._free -= size
        try:
            yield
        finally:
            self._free += size


def read_one(request: Request, resource: Resource) -> CheckedRecord:
    """Read the one record in a request's body.

    Raises:
        ProblemError: 411, 413, 415, 400 for a body that is not JSON, 422 for a record that breaks a rule.
    """
    _check_media_type(request, [JSON])
    body = _body(request, MAX_BYTES)
    try:
        return read_record(resource, body)
    except JsonError as exc:
        raise refuse("malformed", f"The body {exc}.", errors=exc.faults) from None
    except InvalidRecordError as exc:
        raise refuse("invalid-record", f"The record breaks a rule: {exc}.", errors=exc.faults) from None


def read_batch(request: Request, resource: Resource) -> list[CheckedRecord]:
    """Read the records in a request's body: a JSON array, or NDJSON with one record in each line.

    Raises:
        ProblemError: 411, 413, 415, 400 for a body that is not JSON, 422 for records that break a rule; each fault
            names the record by its index.
    """
    media_type = _check_media_type(request, [JSON, *NDJSON])
    body = _body(request, MAX_BATCH_BYTES).removeprefix(codecs.BOM_UTF8)
    # Their number is checked before any is decoded: a megabyte of empty records would take seconds.
    texts: Sequence[bytes | msgspec.Raw] = _lines(body) if media_type in NDJSON else _elements(body)
    if not texts:
        raise refuse("invalid-record", "The batch has no records.")
    if len(texts) > MAX_RECORDS:
        raise refuse("too-large", f"The batch has {len(texts)} records, more than the {MAX_RECORDS} allowed.")
    records, faults = _check(resource, map(bytes, texts))
    if faults:
        more = "" if len(faults) <= MAX_FAULTS else f"; the first {MAX_FAULTS} are named"
        places = "one place" if len(faults) == 1 else f"{len(faults)} places"
        detail = f"The batch breaks rules in {places}{more}. Nothing was started."
        raise refuse("invalid-record", detail, errors=faults[:MAX_FAULTS])
    return records


def idempotency_key(request: Request) -> str | None:
    """Return the request's Idempotency-Key, None where it has none.

    Raises:
        ProblemError: 400, the key is not 1 to 255 visible ASCII characters.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise refuse("malformed", "The header Idempotency-Key must be 1 to 255 visible ASCII characters.")
    return key


def flag(request: Request, name: str, *, default: bool) -> bool:
    """Return a flag of the request's query.

    Raises:
        ProblemError: 400, it is neither true nor false.
    """
    told = request.query.get(name, "").lower() or str(default).lower()
    if told not in {"true", "false"}:
        raise refuse("malformed", f"{name} must be true or false.")
    return told == "true"


def _check_media_type(request: Request, media_types: Sequence[str]) -> str:
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in media_types and not (media_type.startswith("application/") and media_type.endswith("+json")):
        accepted = [*media_types, f"application/*{_JSON_SUFFIX}"]
        got = f"not {media_type[:100]!r}" if media_type else "and none is given"
        detail = f"The Content-Type must be {' or '.join(accepted)}, {got}."
        raise refuse("media-type", detail, headers={"accept": ", ".join(media_types)})
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise refuse("media-type", f"The charset must be utf-8, not {charset[1][:100]!r}.")
    return media_type


def _body(request: Request, limit: int) -> bytes:
    """Return the request's body decoded, of at most `limit` bytes."""
    if not request.body and "chunked" in request.headers.get("transfer-encoding", "").lower():
        detail = "The body was sent in chunks, which the Functions host does not hand on. Send a Content-Length."
        raise refuse("length-required", detail)
    encoding = request.headers.get("content-encoding")
    try:
        return decoded_body(request.body, encoding, limit)
    except BodyTooLargeError:
        size = "" if encoding else f"{len(request.body)} bytes, "
        raise refuse("too-large", f"The body has {size}more than the {limit} bytes allowed.") from None
    except ContentEncodingError as exc:
        detail = f"The body cannot be decoded: {exc}."
        raise refuse("content-encoding", detail, headers={"accept-encoding": ACCEPTED}) from None


def _elements(body: bytes) -> list[msgspec.Raw]:
    """Return the texts of an array's records: they are JSON, though maybe not as this app accepts it."""
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        pass
    try:
        # The array is one level around its records.
        strict_json.decode(body, strict_json.MAX_DEPTH + 1)
    except JsonError as exc:
        raise refuse("malformed", f"The body {exc}. Nothing was started.", errors=exc.faults) from None
    detail = f"The body must be a JSON array of records. One record goes to the route above; NDJSON is {NDJSON[0]}."
    raise refuse("invalid-record", detail)


def _lines(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.strip()]


def _check(resource: Resource, texts: Iterable[bytes]) -> tuple[list[CheckedRecord], list[Fault]]:
    records: list[CheckedRecord] = []
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        try:
            record = read_record(resource, text)
        except JsonError as exc:
            fault = Fault(f"/{index}", exc.faults[0].detail)
            raise refuse("malformed", f"Record {index} {exc}. Nothing was started.", errors=[fault]) from None
        except InvalidRecordError as exc:
            faults += [Fault(f"/{index}{fault.pointer}", fault.detail) for fault in exc.faults]
            continue
        earlier = first.setdefault(record.id, index)
        if earlier != index:
            faults.append(Fault(f"/{index}/{resource.id_member}", f"is the same as that of record {earlier}"))
        records.append(record)
    return records, faults
