"""What schemathesis has to know of the app beyond its OpenAPI document; it imports this module."""

from __future__ import annotations

import json
from typing import Any

import schemathesis

from shared.errors import JsonError
from shared.rules.strict_json import decode
from tests.end_to_end.stage import RESOURCE, records


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:  # noqa: ANN401, schemathesis's own
    """Leave out what the app never sees, and what JSON Schema cannot say.

    The host refuses headers outside ASCII with an empty 400, and drops empty headers and empty values of the query.
    Azure Storage knows no time before 1601. Only the app can make page tokens, the ids of a batch must differ, and
    every JSON library must read its numbers.
    """
    headers = [str(value) for value in (case.headers or {}).values()]
    query = {name: str(value) for name, value in (case.query or {}).items()}
    return (
        all(value.strip() and value.isascii() and value.isprintable() for value in headers)
        and all(value not in {"", "[]", "['']", "{}"} for value in query.values())
        and "token" not in query
        and not any("0" < query.get(name, "")[:4] < "1602" for name in ("from", "to"))
        and _has_different_ids(case.body)
        and _is_exact(case.body)
    )


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:  # noqa: ANN401, the same
    """Never wait for a result: a valid record may well be rejected by the partner."""
    if case.headers:
        case.headers.pop("Prefer", None)


@schemathesis.serializer("application/x-ndjson", "application/ndjson", "application/jsonl")
def ndjson(_context: Any, value: Any) -> bytes:  # noqa: ANN401, the same
    """Write records in the place of any text: to OpenAPI, NDJSON is text."""
    return "\n".join(map(json.dumps, records(2) if isinstance(value, str) else [value])).encode()


def _has_different_ids(body: Any) -> bool:  # noqa: ANN401, any JSON
    records_ = [each for each in body if isinstance(each, dict)] if isinstance(body, list) else []
    ids = [str(each.get(RESOURCE.id_member)) for each in records_]
    return len(ids) == len(set(ids))


def _is_exact(body: Any) -> bool:  # noqa: ANN401, any JSON
    if not isinstance(body, dict | list):
        return True
    try:
        decode(json.dumps(body).encode())
    except (JsonError, ValueError):
        return False
    return True
