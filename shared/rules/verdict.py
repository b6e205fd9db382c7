"""What a partner's response means for a delivery: the two tables of docs/verdicts.md. Pure.

Only the partner's verdict on the record rejects it. Problems with credentials, limits, proxies or the network defer it.
An attempt is uncertain if the partner may have stored the record although nobody said so.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import replace

from shared.errors import ResourceError
from shared.resource import Verdict
from shared.rules.outcome import Outcome, shortened
from shared.rules.record import at_pointer, id_pointer, named_id
from shared.rules.same import differing_members, is_same_id

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from shared.resource import ApiResponse, Resource
    from shared.rules.outcome import OutcomeKind
    from shared.rules.record import CheckedRecord

# RFC 9110 section 15.5, RFC 4918 section 11.3, RFC 8470 section 5.2, RFC 6585 sections 4 and 5: the request was not
# acted on, and a later one may be. A proxy answers 407, and 431 is about the headers, to which a record adds none.
_NOT_NOW = {407, 408, 421, 423, 425, 429, 431}
_UNAUTHORIZED, _FORBIDDEN, _CONFLICT = 401, 403, 409
# The partner knows nothing, or has no look-up for this app.
_ABSENT = {204, 404, 410}
_NO_LOOK_UP = {401, 403, 405, 501}
# Seconds from the delivery's start in which an error page is taken for a proxy's: time to mend the configuration.
PROXY_PATIENCE = 600.0
_MAX_NAMES, _MAX_NAME = 10, 60
# The parameters of a challenge (RFC 9110 section 11.6.1); some servers leave out the quotes, or use others.
_PARAMETER = re.compile(r"""(?<![\w-])([\w-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)|'([^']*+)|([^\s,;"']++))""", re.ASCII)

Missing = Literal["absent", "no look-up"]
Step = Literal["look up", "post"]


def attempt_steps(  # noqa: PLR0913, each is a fact that decides
    resource: Resource,
    record: CheckedRecord,
    *,
    age: float,
    was_uncertain: bool,
    was_absent: bool,
    settle: float,
    may_repeat: bool = False,
) -> Generator[Step, ApiResponse, Outcome]:
    """Make one attempt at a delivery: yield the calls to make, receive their responses, return the outcome.

    `was_absent`: a look-up `settle` seconds ago or earlier, after the last uncertain attempt, did not find the record.
    `may_repeat`: a host that was lost may have made this attempt before. A look-up that is refused once is asked again.
    """
    look_up = partial(judge_look_up, resource, record, age=age, was_uncertain=was_uncertain)
    if resource.look_up is not None and (was_uncertain or not resource.honours_idempotency_key):
        found = look_up((yield "look up"))
        if found == "no look-up" and may_repeat:
            found = look_up((yield "look up"))
        if isinstance(found, Outcome):
            return found
        if was_uncertain and not was_absent:
            reason = "An earlier attempt may have stored the record, and the partner does not show it (yet)"
            return Outcome("deferred", record.id, reason=reason, retry_after=settle, is_uncertain=True, is_absent=True)
    judged = judge_post(resource, record, (yield "post"), age=age, was_uncertain=was_uncertain)
    if judged.kind != "rejected" or not judged.is_uncertain:
        return judged
    if resource.look_up is not None:
        # After an uncertain attempt the record has been missed before: one more look-up without it is enough.
        found = look_up((yield "look up"))
        return found if isinstance(found, Outcome) else replace(judged, is_uncertain=False)
    return replace(judged, kind="deferred") if was_uncertain else replace(judged, is_uncertain=False)


def judge_post(
    resource: Resource, record: CheckedRecord, response: ApiResponse, *, age: float, was_uncertain: bool
) -> Outcome:
    """Judge the response to a POST or PUT of `record`, `age` seconds after its delivery began.

    `was_uncertain`: an earlier attempt may have stored the record. A rejection that is uncertain holds only if a
    look-up does not find the record.
    """
    verdict = _asked(resource, "judge", resource.judge, response) if resource.judge is not None else None
    if not isinstance(verdict, Verdict | None):
        raise ResourceError([f"Resource {resource.name}: judge= must return a Verdict or None, not {verdict!r}"])
    # A partner's own words need not be text.
    reason = str(verdict.reason) if verdict and verdict.reason else None
    if verdict is not None and verdict.kind != "rejected":
        kind: OutcomeKind = "deferred" if verdict.kind == "uncertain" else verdict.kind
        reason = reason or (f"The partner answered {response.status}" if kind == "deferred" else None)
        is_uncertain = verdict.kind == "uncertain"
        return Outcome(kind, record.id, response.status, reason, {}, verdict.retry_after, is_uncertain)
    if verdict is None and (outcome := _unless_refused(resource, record, response, age, was_uncertain=was_uncertain)):
        return outcome
    problem = response.problem
    words = ": ".join(str(problem[name]) for name in ("title", "detail") if name in problem)
    if problem and not words:
        words = msgspec.json.encode(problem).decode()
    reason = reason or f"The partner answered {response.status}" + (words and f": {words}")
    is_uncertain = was_uncertain or (verdict is None and response.status == _CONFLICT)
    return Outcome("rejected", record.id, response.status, reason, problem, is_uncertain=is_uncertain)


def _unless_refused(
    resource: Resource, record: CheckedRecord, response: ApiResponse, age: float, *, was_uncertain: bool
) -> Outcome | None:
    """Judge a response to a post by its status; None for a 4xx that is about the record."""
    status, is_json = response.status, _is_json(response)
    if is_json:
        named = named_id(resource, response.content)
        if named is None or is_same_id(record.id, named):
            return Outcome("created", record.id, status)
    asks_to_wait = response.retry_after is not None
    # The first that holds is the reason.
    uncertain = {
        "with the id of another record": is_json,
        "with a body that is not JSON": response.is_success,
        "a redirect, which is not followed: the access token is for one origin": 300 <= status < 400,  # noqa: PLR2004
        "a server error": not 400 <= status < 500,  # noqa: PLR2004, RFC 9110 section 15
        "which may mean that an earlier attempt is in progress": status == _CONFLICT
        and (was_uncertain or asks_to_wait),
    }
    deferred = {
        "and refuses a new access token": refuses_token(status, response.headers),
        "which means not now": status in _NOT_NOW or asks_to_wait,
        "with an HTML page, as a proxy does": response.is_html and status != _CONFLICT and age < PROXY_PATIENCE,
    }
    for words, holds in (uncertain | deferred).items():
        if holds:
            return _deferred(record, response, words, is_uncertain=words in uncertain)
    return None


def refuses_token(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a response refuses the access token itself (RFC 6750 section 3.1); `headers` is case-insensitive.

    A 401 does, whatever error its challenges name (servers have invented many), unless the only one is
    "insufficient_scope": a new token has the same scope. A 403 does if it says "invalid_token".
    """
    if status not in {_UNAUTHORIZED, _FORBIDDEN}:
        return False
    parameters = _PARAMETER.findall(headers.get("www-authenticate", ""))
    errors = {"".join(values).strip("' ").lower() for name, *values in parameters if name.lower() == "error"}
    return errors != {"insufficient_scope"} if status == _UNAUTHORIZED else "invalid_token" in errors


def judge_look_up(
    resource: Resource, record: CheckedRecord, response: ApiResponse, *, age: float, was_uncertain: bool
) -> Outcome | Missing:
    """Judge the response to a look-up of `record`, before it is posted or after a post that decided nothing.

    "absent": the partner does not have it. "no look-up": the partner offers none, so the post must decide.
    """
    found = found_records(resource, record.id, response, record)
    if found == "absent":
        return "absent"
    if found is not None:
        return _compared(resource, record, response.status, found, was_uncertain=was_uncertain)
    if response.status in _NO_LOOK_UP and not was_uncertain and not (response.is_html and age < PROXY_PATIENCE):
        return "no look-up"
    words = f"without a record that names this id at {id_pointer(resource)}"
    words = words if _is_json(response) else "which proves nothing"
    return _deferred(record, response, f"to a look-up, {words}", is_uncertain=was_uncertain)


def found_records(
    resource: Resource, id_: str, response: ApiResponse, record: CheckedRecord | None = None
) -> list[dict[str, Any]] | Literal["absent"] | None:
    """Return the records with this id in the answer to a look-up; None where the answer proves nothing.

    `record` is the one that was sent, for partners whose form of it only `Resource.same` knows.
    """
    if _says_absent(resource, response):
        return "absent"
    if not _is_json(response) or response.content is None:
        return None
    pointer = resource.look_up.items if resource.look_up is not None else ""
    items = at_pointer(response.content, pointer)
    if items is None:
        above, _, name = pointer.rpartition("/")
        parent = at_pointer(response.content, above)
        # Some servers leave an empty list out, and with it everything.
        is_said = response.content in ({}, []) or (isinstance(parent, dict) and name in parent)
        return "absent" if is_said else None
    records = [each for each in (items if isinstance(items, list) else [items]) if isinstance(each, dict)]
    ids = [named_id(resource, each) for each in records]
    matching = [each for each, other in zip(records, ids, strict=True) if other is not None and is_same_id(id_, other)]
    if matching:
        return matching
    if isinstance(items, list):
        return "absent" if not items or any(other is not None for other in ids) else None
    # A partner may keep the id in a form of its own, which `same` knows.
    is_ours = (
        record is not None
        and resource.same is not None
        and records
        and _asked(resource, "same", resource.same, record.content(), records[0])
    )
    return records if is_ours else None


def _says_absent(resource: Resource, response: ApiResponse) -> bool:
    """Return whether an answer to a look-up says that nothing is there, in the usual ways or in the partner's own."""
    is_empty = _is_json(response) and response.body.strip() in {b"", b"null"}
    if is_empty or (response.status in _ABSENT and not response.is_html):
        return True
    absent = resource.look_up.absent if resource.look_up is not None else None
    return absent is not None and bool(_asked(resource, "absent", absent, response))


def _is_json(response: ApiResponse) -> bool:
    return response.is_success and response.is_readable and not response.is_html


def _compared(
    resource: Resource, record: CheckedRecord, status: int, found: list[dict[str, Any]], *, was_uncertain: bool
) -> Outcome:
    sent = record.content()
    same = resource.same
    if any(_asked(resource, "same", same, sent, each) if same else not differing_members(sent, each) for each in found):
        return Outcome("exists", record.id, status)
    differing = [shortened(name, _MAX_NAME) for name in differing_members(sent, found[0])[:_MAX_NAMES]]
    what = "stored the record in another form" if was_uncertain else "another record with this id"
    reason = f"The partner has {what}; different: {', '.join(differing)}"
    return Outcome("created" if was_uncertain else "rejected", record.id, status, reason, differing=differing)


def _asked(resource: Resource, name: str, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401, what a user's function returns
    """Return what a function of shared/partner.py says.

    Raises:
        ResourceError: it raised something. The text names it, and what it raised. Or it calls an `async` function,
            whose coroutine would count as true.
    """
    try:
        said = function(*arguments)
    except Exception as exc:
        raise ResourceError([f"Resource {resource.name}: {name}= raised {type(exc).__name__}: {exc}"]) from exc
    if isinstance(said, Coroutine):
        said.close()
        raise ResourceError([f"Resource {resource.name}: {name}= must be a plain function, and not async"])
    return said


def _deferred(record: CheckedRecord, response: ApiResponse, words: str, *, is_uncertain: bool) -> Outcome:
    reason = f"The partner answered {response.status}, {words}"
    problem = response.problem
    return Outcome("deferred", record.id, response.status, reason, problem, response.retry_after, is_uncertain)
