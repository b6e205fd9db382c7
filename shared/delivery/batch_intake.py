"""From an HTTP request to a checked batch: one bad record, and nothing is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.api import strict_json
from shared.api.business import Business
from shared.delivery.batch_input import MAX_RECORDS
from shared.delivery.intake import check_media_type, check_size
from shared.delivery.problem import ProblemError, problem
from shared.delivery.record_limits import limit_faults, size_fault
from shared.errors import Fault, InvalidBusinessError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.delivery.exchange import Reply, Request

MAX_BATCH_BYTES = 1024 * 1024
# A thousand bad records are named by the first so many faults.
MAX_FAULTS = 100
JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/jsonl")


def read_batch(request: Request) -> list[Business]:
    """Give the records in a request's body: a JSON array, or NDJSON with one record a line.

    Their number, and the size of each as it was sent, are checked before any of them is decoded: a megabyte of empty
    records would else take seconds.

    Raises:
        ProblemError: 415 for another media type, 413 for too large a body or too many records, 400 for what is not
            JSON, 422 for records that break a rule; each is named by its index.
    """
    media_type = check_media_type(request, [JSON, *NDJSON])
    check_size(request, MAX_BATCH_BYTES)
    texts: Sequence[bytes | msgspec.Raw] = _elements(request.body) if media_type == JSON else _lines(request.body)
    if not texts:
        raise ProblemError(problem(422, "The batch has no records."))
    if len(texts) > MAX_RECORDS:
        raise ProblemError(problem(413, f"The batch has {len(texts)} records, more than the {MAX_RECORDS} allowed."))
    businesses, faults = _check(map(bytes, texts))
    if faults:
        more = "" if len(faults) <= MAX_FAULTS else f"; the first {MAX_FAULTS} are named"
        detail = f"The batch breaks rules in {len(faults)} places{more}. Nothing was started."
        raise ProblemError(problem(422, detail, errors=faults[:MAX_FAULTS]))
    return businesses


def _elements(body: bytes) -> list[msgspec.Raw]:
    """Give the texts of an array's records: they are JSON, though not always JSON as this app takes it."""
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        raise ProblemError(_not_an_array(body)) from None


def _not_an_array(body: bytes) -> Reply:
    """Say what is wrong with a body that is no array of JSON; an array would be one level around its records."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        _decode(body, "The body", depth=strict_json.MAX_DEPTH + 1)
    detail = f"The body must be a JSON array of records; one record goes to POST /businesses, NDJSON is {NDJSON[0]}."
    return problem(422, detail)


def _lines(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.strip()]


def _decode(text: bytes, what: str, pointer: str = "", depth: int = strict_json.MAX_DEPTH) -> tuple[object, bool]:
    try:
        return strict_json.decode_text(text, depth)
    except strict_json.JsonError as exc:
        fault = Fault(pointer, exc.fault.detail)
        raise ProblemError(problem(400, f"{what} {exc}. Nothing was started.", errors=[fault])) from None


def _check(texts: Iterable[bytes]) -> tuple[list[Business], list[Fault]]:
    businesses: list[Business] = []
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for index, text in enumerate(texts):
        if fault := size_fault(text.strip()):
            faults.append(Fault(f"/{index}", fault.detail))
            continue
        record, is_as_written = _decode(text, f"Record {index}", f"/{index}")
        try:
            business = Business.from_json(record, text if is_as_written else None)
        except InvalidBusinessError as exc:
            faults += _at(index, exc.faults)
            continue
        faults += _at(index, limit_faults(business))
        earlier = first.setdefault(business.external_id, index)
        if earlier != index:
            faults.append(Fault(f"/{index}/externalId", f"is the same as that of record {earlier}"))
        businesses.append(business)
    return businesses, faults


def _at(index: int, faults: Iterable[Fault]) -> list[Fault]:
    return [Fault(f"/{index}{fault.pointer}", fault.detail) for fault in faults]
