"""Deliveries through the app's HTTP interface, for the demo, `up` and the trial of a package."""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING, Any

import httpx

from sandbox.sample import sample_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shared.resource import Resource

# Seconds between two looks at a delivery.
POLL_SECONDS = 0.05


class DeliveryError(Exception):
    """A delivery did not end as it should; the text is for the person who ran the command."""


def send(http: httpx.Client, url: str, body: object, *, key: str | None = None) -> str:
    """Send a record or a batch to a route of the app; return the link to its delivery.

    Raises:
        DeliveryError: the app does not accept it.
    """
    accepted = http.post(url, json=body, headers={} if key is None else {"Idempotency-Key": key})
    if accepted.status_code != httpx.codes.ACCEPTED:
        raise DeliveryError(f"POST {url} answered {accepted.status_code}: {_told(accepted)}")
    return str(accepted.json()["statusQueryGetUri"])


def delivered(
    http: httpx.Client, link: str, *, patience: float = 30.0, show: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Follow the link to a delivery until everything is delivered; return its last status. `show` gets each.

    Raises:
        DeliveryError: it ends otherwise, or takes more than `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        response = http.get(link)
        if response.status_code not in {httpx.codes.OK, httpx.codes.ACCEPTED}:
            raise DeliveryError(f"GET {link} answered {response.status_code}: {_told(response)}")
        status: dict[str, Any] = response.json()
        if show is not None:
            show(status)
        if status["state"] == "delivered":
            return status
        if response.status_code == httpx.codes.OK:
            raise DeliveryError(f"the delivery has ended, but not everything is delivered: {summary(status)}")
        if time.monotonic() > deadline:
            raise DeliveryError(f"the delivery has not ended in {patience:g} s: {summary(status)}")
        time.sleep(POLL_SECONDS)


def summary(status: dict[str, Any]) -> str:
    """Return one line for a delivery: its resource and record or number of records, its state, and what went wrong."""
    counted = ("created", "exists", "rejected", "expired", "pending")
    if "total" in status:
        counts = ", ".join(f"{status[name]} {name}" for name in counted if status.get(name))
        told = f"batch of {status['total']}: {status['state']} ({counts})"
    else:
        outcome = f" ({status['outcome']})" if status.get("outcome") else ""
        told = f"{status.get('recordId', '')}: {status['state']}{outcome}".removeprefix(": ")
    details = [f"{status['attempts']} attempts"] if status.get("attempts", 1) > 1 else []
    details += [status["reason"]] if status.get("reason") else []
    details += ["it may have arrived"] if status.get("uncertain") else []
    return " ".join([f"{status['resource']} {told}", *(f"- {detail}" for detail in details)])


def check_stored(http: httpx.Client, partner_url: str, expected: dict[str, set[str]]) -> Iterator[str]:
    """Check the partners' stores: these ids of each resource, once each, with one token request for each partner.

    Yields one sentence for each thing that is right.

    Raises:
        DeliveryError: one is not.
    """
    stored = http.get(f"{partner_url}/sandbox/records", params={"records": "false"}).json()
    for resource, ids in expected.items():
        counts = stored["ids"].get(resource, {})
        if counts != dict.fromkeys(ids, 1):
            wrong = {
                id_: counts.get(id_, 0) for id_ in sorted({*ids, *counts}) if counts.get(id_) != 1 or id_ not in ids
            }
            raise DeliveryError(f"the partner should have each {resource} once: {json.dumps(wrong)[:500]}")
        yield f"{len(ids):>4} {resource} stored, once each"
    partners = http.get(f"{partner_url}/sandbox/state").json()["partners"]
    for name, counted in partners.items():
        if counted["calls"] and counted["tokenRequests"] != 1:
            raise DeliveryError(f"{name} got {counted['tokenRequests']} token requests, not 1")
        if counted["refused"]:
            raise DeliveryError(f"{name} refused {counted['refused']} of {counted['calls']} calls")
        if counted["calls"]:
            yield f"{counted['calls']:>4} calls to {name} with 1 token request, none refused"


def commands_to_try(host: str, partner: str, resources: Sequence[Resource], key: str | None) -> str:
    """Return the console's address, and curl commands against the app and the partners."""
    key_header = f" -H 'x-functions-key: {key}'" if key else ""
    lines = [f"console: {host}/api/console#partner={partner}"]
    for resource in resources:
        url, record = f"{host}/api/{resource.route}", sample_record(resource, 1001)
        body = f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(record, ensure_ascii=False))}"
        lines.append(f"  curl -i {url}{key_header} {body}")
        if resource.look_up is not None:
            lines.append(
                f"  curl -s {url}/{httpx.URL(path=str(record[resource.id_member])).raw_path.decode()}{key_header}"
            )
    lines += [f"  curl -s {host}/api/deliveries{key_header}", f"  curl -s {partner}/sandbox/records"]
    lines.append(f"  curl -s -X POST {partner}/sandbox/revoke   # every token that was issued so far")
    lines.append(f"  curl -s -X POST {partner}/sandbox/down     # and /sandbox/limit, /slow, /recover")
    return "\n".join(lines)


def _told(response: httpx.Response) -> str:
    """Return what a problem says, with each fault of a record, or the start of another answer."""
    try:
        problem = response.json()
        faults = [f"{fault.get('pointer', '')} {fault['detail']}".strip() for fault in problem.get("errors", [])]
        return "; ".join(faults) or str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text[:200]
