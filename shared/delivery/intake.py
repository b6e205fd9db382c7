"""From an HTTP request to a checked delivery: nothing is started for a request that breaks a rule."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from shared.api import strict_json
from shared.api.business import MAX_BYTES, Business
from shared.delivery.idempotency_key import IDEMPOTENCY_KEY
from shared.delivery.problem import ProblemError, problem
from shared.delivery.record_limits import limit_faults
from shared.errors import Fault, InvalidBusinessError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.delivery.exchange import Request

_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)


def read_business(request: Request) -> Business:
    """Give the record in a request's body.

    Raises:
        ProblemError: 415 for another media type, 413 for too large a body, 400 for a body that is not JSON, 422 for a
            record that breaks a rule.
    """
    check_media_type(request, ["application/json"])
    check_size(request, MAX_BYTES)
    try:
        record, is_as_written = strict_json.decode_text(request.body)
        business = Business.from_json(record, request.body if is_as_written else None)
    except strict_json.JsonError as exc:
        raise ProblemError(problem(400, f"The body {exc}.", errors=[exc.fault])) from None
    except InvalidBusinessError as exc:
        raise ProblemError(problem(422, f"The business breaks a rule: {exc}.", errors=exc.faults)) from None
    if faults := limit_faults(business):
        raise ProblemError(problem(422, f"The business breaks a rule: {faults[0]}.", errors=faults))
    return business


def check_media_type(request: Request, media_types: Sequence[str]) -> str:
    """Give the body's media type in lower case.

    Raises:
        ProblemError: 415, it is none of `media_types`, or its charset is not UTF-8.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in media_types:
        said = f"not {media_type[:100]!r}" if media_type else "and none is given"
        detail = f"The Content-Type must be {' or '.join(media_types)}, {said}."
        raise ProblemError(problem(415, detail, headers={"accept": ", ".join(media_types)}))
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise ProblemError(problem(415, f"The charset must be utf-8, not {charset[1][:100]!r}."))
    return media_type


def check_size(request: Request, most: int) -> None:
    """Refuse a body of more than `most` bytes.

    Raises:
        ProblemError: 413.
    """
    if len(request.body) > most:
        raise ProblemError(problem(413, f"The body has {len(request.body)} bytes, more than the {most} allowed."))


def instance_id(request: Request) -> str | None:
    """Give the instance id of the delivery that the request names, None where it names none: each is then a new one.

    It is derived from the Idempotency-Key, so that the same key names the same delivery.

    Raises:
        ProblemError: 400, the key is not 1 to 255 visible ASCII characters.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.fullmatch(key):
        fault = Fault("", "Idempotency-Key must be 1 to 255 visible ASCII characters")
        raise ProblemError(problem(400, f"The header {fault}.", errors=[fault]))
    # Instance ids allow fewer characters than keys do, and the Durable SDK puts them into URLs as they are.
    return "key-" + hashlib.sha256(key.encode()).hexdigest()[:40]
