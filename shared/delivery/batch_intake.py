"""From an HTTP request to a checked batch: one bad record, and nothing is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.api import strict_json
from shared.api.business import MAX_BYTES, Business
from shared.delivery.custom_object import CUSTOM_OBJECT_MARK, custom_object_fault
from shared.delivery.intake import check_media_type, check_size
from shared.delivery.problem import ProblemError, problem
from shared.errors import Fault, InvalidBusinessError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.delivery.exchange import Request

MAX_RECORDS = 1_000
MAX_BATCH_BYTES = 1024 * 1024
# A thousand bad records are named by the first so many faults.
MAX_FAULTS = 100
JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/jsonl")


def read_batch(request: Request) -> list[Business]:
    """Give the records in a request's body: a JSON array, or NDJSON with one record a line.

    Raises:
        ProblemError: 415 for another media type, 413 for too large a body or too many records, 400 for what is not
            JSON, 422 for records that break a rule; each is named by its index.
    """
    media_type = check_media_type(request, [JSON, *NDJSON])
    check_size(request, MAX_BATCH_BYTES)
    values = _array(request.body) if media_type == JSON else _lines(request.body)
    if not values:
        raise ProblemError(problem(422, "The batch has no records."))
    if len(values) > MAX_RECORDS:
        raise ProblemError(problem(413, f"The batch has {len(values)} records, more than the {MAX_RECORDS} allowed."))
    businesses, faults = _check(values)
    if faults:
        more = "" if len(faults) <= MAX_FAULTS else f"; the first {MAX_FAULTS} are named"
        detail = f"The batch breaks rules in {len(faults)} places{more}. Nothing was started."
        raise ProblemError(problem(422, detail, errors=faults[:MAX_FAULTS]))
    return businesses


def _array(body: bytes) -> list[object]:
    try:
        texts = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        return _whole_array(body)
    return _each(map(bytes, texts))


def _whole_array(body: bytes) -> list[object]:
    """Say what is wrong with a body that is no array of JSON; the array is one level around each of its records."""
    value = _decode(body, "The body", depth=strict_json.MAX_DEPTH + 1)
    if not isinstance(value, list):
        detail = (
            f"The body must be a JSON array of records; one record goes to POST /businesses, NDJSON is {NDJSON[0]}."
        )
        raise ProblemError(problem(422, detail))
    return value


def _lines(body: bytes) -> list[object]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > MAX_RECORDS:
        raise ProblemError(problem(413, f"The batch has {len(lines)} records, more than the {MAX_RECORDS} allowed."))
    return _each(lines)


def _each(texts: Iterable[bytes]) -> list[object]:
    return [_decode(text, f"Record {index}", f"/{index}") for index, text in enumerate(texts)]


def _decode(text: bytes, what: str, pointer: str = "", depth: int = strict_json.MAX_DEPTH) -> object:
    try:
        return strict_json.decode(text, depth)
    except strict_json.JsonError as exc:
        fault = Fault(pointer, exc.fault.detail)
        raise ProblemError(problem(400, f"{what} {exc}. Nothing was started.", errors=[fault])) from None


def _check(values: Iterable[object]) -> tuple[list[Business], list[Fault]]:
    businesses: list[Business] = []
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for index, value in enumerate(values):
        try:
            business = Business.from_json(value)
        except InvalidBusinessError as exc:
            faults += [Fault(f"/{index}{fault.pointer}", fault.detail) for fault in exc.faults]
            continue
        text = business.encode()
        size = len(text)
        if size > MAX_BYTES:
            faults.append(Fault(f"/{index}", f"has {size} bytes, more than the {MAX_BYTES} allowed"))
        if CUSTOM_OBJECT_MARK in text and (fault := custom_object_fault(business.to_json())):
            faults.append(Fault(f"/{index}{fault.pointer}", fault.detail))
        earlier = first.setdefault(business.external_id, index)
        if earlier != index:
            faults.append(Fault(f"/{index}/externalId", f"is the same as that of record {earlier}"))
        businesses.append(business)
    return businesses, faults
