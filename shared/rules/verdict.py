"""What a partner's response means for a delivery: the two tables of docs/verdicts.md. Pure.

Only the partner's verdict on the record rejects it. Problems with credentials, limits, proxies or the network defer it.
An attempt is uncertain if the partner may have stored the record although nobody said so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from shared.rules.outcome import Outcome, kept_problem
from shared.rules.record import at_pointer, named_id
from shared.rules.same import differing_members, is_same_id
from shared.rules.text import shortened

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from shared.resource import ApiResponse, Resource
    from shared.rules.record import CheckedRecord

# RFC 9110 section 15.5, RFC 4918 section 11.3, RFC 8470 section 5.2, RFC 6585 sections 4 and 5: the request was not
# acted on, and a later one may be. A proxy answers 407, and 431 is about the headers, to which a record adds none.
_NOT_NOW = {407, 408, 421, 423, 425, 429, 431}
_CONFLICT = 409
# The partner knows nothing, or has no look-up for this app.
_ABSENT = {204, 404, 410}
_NO_LOOK_UP = {401, 403, 405, 501}
PROXY_PATIENCE = 600.0
"""Seconds from the delivery's start in which an error page is taken for a proxy's: time to mend the configuration."""

MAX_PROBLEM = 4_000
"""UTF-16 code units of the partner's problem: half of a custom status."""

# The parameters of a challenge (RFC 9110 section 11.6.1); some servers leave out the quotes, or use others.
_PARAMETER = re.compile(r"""(?<![\w-])([\w-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)|'([^']*+)|([^\s,;"']++))""", re.ASCII)

Missing = Literal["absent", "no look-up"]
Step = Literal["look up", "post"]


@dataclass(frozen=True, slots=True)
class LookUpFirst:
    """The response decides nothing before a look-up; `otherwise` holds if that shows that the record is absent."""

    otherwise: Outcome


def judge_post(
    resource: Resource, record: CheckedRecord, response: ApiResponse, *, age: float, was_uncertain: bool
) -> Outcome | LookUpFirst:
    """Judge the response to a POST or PUT of `record`, `age` seconds after its delivery began.

    `was_uncertain`: an earlier attempt may have stored the record.
    """
    verdict = resource.judge(response) if resource.judge is not None else None
    if verdict is not None and verdict.kind != "rejected":
        kind: Literal["created", "exists", "deferred"] = "deferred" if verdict.kind == "uncertain" else verdict.kind
        is_uncertain = verdict.kind == "uncertain"
        return Outcome(
            kind, record.id, response.status, verdict.reason, {}, verdict.retry_after, is_uncertain=is_uncertain
        )
    if verdict is None and (outcome := _unless_refused(resource, record, response, age, was_uncertain=was_uncertain)):
        return outcome
    refused = _refused(record, response)
    if verdict is not None and verdict.reason:
        refused = Outcome("rejected", record.id, response.status, verdict.reason, refused.problem)
    if was_uncertain or (verdict is None and response.status == _CONFLICT):
        return LookUpFirst(refused)
    return refused


def judge_look_up(
    resource: Resource, record: CheckedRecord, response: ApiResponse, *, age: float, was_uncertain: bool
) -> Outcome | Missing:
    """Judge the response to a look-up of `record`, before it is posted or after a post that decided nothing.

    "absent": the partner does not have it. "no look-up": the partner offers none, so the post must decide.
    """
    if response.is_success and response.is_readable and not response.is_html:
        found = found_records(resource, record.id, response, record)
        if found == "absent":
            return "absent"
        if found is not None:
            return _compared(resource, record, response, found, was_uncertain=was_uncertain)
        words = f"to a look-up, without a record that names this id at {_id_pointer(resource)}"
        return _deferred(record, response, words, is_uncertain=was_uncertain)
    if response.status in _ABSENT and not response.is_html:
        return "absent"
    is_proxy = response.is_html and age < PROXY_PATIENCE
    if response.status in _NO_LOOK_UP and not was_uncertain and not is_proxy:
        return "no look-up"
    return _deferred(record, response, "to a look-up, which proves nothing", is_uncertain=was_uncertain)


def _unless_refused(
    resource: Resource, record: CheckedRecord, response: ApiResponse, age: float, *, was_uncertain: bool
) -> Outcome | None:
    """Judge a response to a post by its status; None for a 4xx that is about the record."""
    status = response.status
    if response.is_success:
        return _accepted(resource, record, response)
    if not 400 <= status < 500:  # noqa: PLR2004, RFC 9110 section 15.5
        return _deferred(record, response, _why_uncertain(status), is_uncertain=True)
    is_in_progress = status == _CONFLICT and (was_uncertain or response.retry_after is not None)
    if is_in_progress:
        words = "which may mean that an earlier attempt is in progress"
    elif _is_about_token(response):
        words = "and refuses a new access token"
    elif status in _NOT_NOW or response.retry_after is not None:
        words = "which means not now"
    elif response.is_html and status != _CONFLICT and age < PROXY_PATIENCE:
        words = "with an HTML page, as a proxy does"
    else:
        return None
    return _deferred(record, response, words, is_uncertain=is_in_progress)


def _accepted(resource: Resource, record: CheckedRecord, response: ApiResponse) -> Outcome:
    if not response.is_readable or response.is_html:
        return _deferred(record, response, "with a body that is not JSON", is_uncertain=True)
    named = named_id(resource, response.content)
    if named is not None and not is_same_id(record.id, named):
        return _deferred(record, response, "with the id of another record", is_uncertain=True)
    return Outcome("created", record.id, response.status)


def _why_uncertain(status: int) -> str:
    if 300 <= status < 400:  # noqa: PLR2004, RFC 9110 section 15.4
        return "a redirect, which is not followed: the access token is for one origin"
    return "a server error"


def _is_about_token(response: ApiResponse) -> bool:
    if response.status not in {401, 403}:
        return False
    parameters = _PARAMETER.findall(response.headers.get("www-authenticate", ""))
    # RFC 6750 section 3.1
    errors = {"".join(values).strip("' ").lower() for name, *values in parameters if name.lower() == "error"}
    return errors != {"insufficient_scope"} if response.status == 401 else "invalid_token" in errors  # noqa: PLR2004


def found_records(
    resource: Resource, id_: str, response: ApiResponse, record: CheckedRecord | None = None
) -> list[dict[str, Any]] | Literal["absent"] | None:
    """Return the records with this id in the answer to a look-up; None where the answer proves nothing.

    `record` is the one that was sent, for partners whose form of it only `Resource.same` knows.
    """
    if response.content is None:
        return "absent" if response.body.strip() in {b"", b"null"} else None
    pointer = resource.look_up.items if resource.look_up is not None else ""
    items = at_pointer(response.content, pointer)
    if items is None:
        parent, name = at_pointer(response.content, pointer.rpartition("/")[0]), pointer.rpartition("/")[2]
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
    if record is None or resource.same is None or not records:
        return None
    return records if resource.same(record.content(), records[0]) else None


def _compared(
    resource: Resource,
    record: CheckedRecord,
    response: ApiResponse,
    found: list[dict[str, Any]],
    *,
    was_uncertain: bool,
) -> Outcome:
    sent = record.content()
    if any(resource.same(sent, each) if resource.same else not differing_members(sent, each) for each in found):
        return Outcome("exists", record.id, response.status)
    differing = tuple(differing_members(sent, found[0]))
    named = ", ".join(shortened(name, 60) for name in differing[:10])
    if was_uncertain:
        reason = f"The partner has stored the record in another form; different: {named}"
        return Outcome("created", record.id, response.status, reason, differing=differing)
    reason = f"The partner has another record with this id; different: {named}"
    return Outcome("rejected", record.id, response.status, reason, differing=differing)


def _id_pointer(resource: Resource) -> str:
    pointer = resource.look_up.id if resource.look_up is not None else None
    return f"/{resource.id_member}" if pointer is None else pointer


def _deferred(record: CheckedRecord, response: ApiResponse, words: str, *, is_uncertain: bool = False) -> Outcome:
    problem = response.problem.to_json() if response.problem else {}
    return Outcome(
        "deferred",
        record.id,
        response.status,
        f"The partner answered {response.status}, {words}",
        kept_problem(problem, MAX_PROBLEM),
        response.retry_after,
        is_uncertain,
    )


def _refused(record: CheckedRecord, response: ApiResponse) -> Outcome:
    problem = response.problem.to_json() if response.problem else {}
    reason = f"The partner answered {response.status}"
    if words := _words(problem):
        reason += f": {words}"
    return Outcome("rejected", record.id, response.status, reason, kept_problem(problem, MAX_PROBLEM))


def _words(problem: Mapping[str, Any]) -> str:
    """Return the title and the detail of a problem, else the whole of it."""
    words = ": ".join(str(problem[name]) for name in ("title", "detail") if name in problem)
    if words or not problem:
        return words
    return msgspec.json.encode(problem).decode()


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
    if resource.look_up is not None and (was_uncertain or not resource.honours_idempotency_key):
        found = judge_look_up(resource, record, (yield "look up"), age=age, was_uncertain=was_uncertain)
        if found == "no look-up" and may_repeat:
            found = judge_look_up(resource, record, (yield "look up"), age=age, was_uncertain=was_uncertain)
        if isinstance(found, Outcome):
            return found
        if was_uncertain and not was_absent:
            return _not_yet_found(record, settle)
    judged = judge_post(resource, record, (yield "post"), age=age, was_uncertain=was_uncertain)
    if isinstance(judged, Outcome):
        return judged
    refused = judged.otherwise
    if resource.look_up is None:
        return replace(refused, kind="deferred", is_uncertain=True) if was_uncertain else refused
    found = judge_look_up(resource, record, (yield "look up"), age=age, was_uncertain=was_uncertain)
    if isinstance(found, Outcome):
        return found
    return (
        replace(_not_yet_found(record, settle), reason=refused.reason) if was_uncertain and not was_absent else refused
    )


def _not_yet_found(record: CheckedRecord, settle: float) -> Outcome:
    reason = "An earlier attempt may have stored the record, and the partner does not show it; it may take a while"
    return Outcome("deferred", record.id, reason=reason, retry_after=settle, is_uncertain=True, is_absent=True)
