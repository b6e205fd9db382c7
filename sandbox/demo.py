"""The demo: one business and one batch, from an HTTP request to the partner's store, told step by step."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx

from sandbox.processes import SandboxProcess, StartError, app_settings
from sandbox.sample import business, why_refused

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_SIZE = 200
# Seconds in which a delivery to a partner on this machine is certainly done.
PATIENCE = 30.0
FINISHED = {"Completed", "Failed", "Terminated"}


class DemoError(Exception):
    """The demo did not show what it should."""


class SampleRefusedError(Exception):
    """The app refuses the demo's records; the text says why, and nothing that the host has written adds to it."""


def demo(*, keep: bool, verbose: bool) -> int:
    """Run the demo; give the exit code: 0 if every record is stored once and the token endpoint was asked once."""
    log = sys.stderr if verbose else None
    try:
        _say("1", "Starting the partner: an HTTP API behind OAuth2, with its token endpoint")
        with SandboxProcess("partner", ["--port", "0"], log=log) as partner:
            _tell(f"listens on {partner.url}; its client is sandbox-client")
            _say("2", "Starting the app, as it is deployed, under the sandbox's Functions host")
            with SandboxProcess("host", ["--port", "0"], app_settings(partner.url), log=log) as host:
                _tell(f"listens on {host.url}")
                try:
                    with httpx.Client(timeout=PATIENCE, trust_env=False) as http:  # no proxy is on the way to us
                        _deliver_one(http, host.url)
                        _deliver_batch(http, host.url)
                        _check(http, partner.url)
                except SampleRefusedError as exc:
                    print(f"\nThe demo failed: {exc}", file=sys.stderr)
                    return 1
                except (DemoError, httpx.HTTPError, KeyError, ValueError) as exc:
                    _explain(exc, host)
                    return 1
                if keep:
                    _keep(host.url, partner.url)
    except StartError as exc:
        print(f"\nThe demo failed: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEnded.")
    return 0


def _deliver_one(http: httpx.Client, url: str) -> None:
    record = business("acme-1")
    _say("3", "POST /api/businesses: one business")
    _tell(json.dumps(record, ensure_ascii=False))
    response = http.post(f"{url}/api/businesses", json=record, headers={"Idempotency-Key": "demo-1"})
    _expect_taken(response)
    _tell("202 Accepted; the orchestration DeliverBusiness has it now, instance " + response.json()["id"])
    status = _watch(http, response.json()["statusQueryGetUri"])
    _tell(f"{status['runtimeStatus']}: {json.dumps(status['output'])}")
    again = http.post(f"{url}/api/businesses", json=record, headers={"Idempotency-Key": "demo-1"})
    _expect(again, 202)
    _tell("sent again with the same Idempotency-Key: the same instance, nothing is delivered twice")
    _say("4", "GET /api/businesses/acme-1: the partner's record, through the app")
    found = http.get(f"{url}/api/businesses/acme-1")
    _expect(found, 200)
    _tell(json.dumps(found.json(), ensure_ascii=False))


def _deliver_batch(http: httpx.Client, url: str) -> None:
    batch = [business(f"batch-{number}") for number in range(BATCH_SIZE)]
    _say("5", f"POST /api/businesses/batch: {BATCH_SIZE} businesses at once")
    response = http.post(f"{url}/api/businesses/batch", json=batch)
    _expect_taken(response)
    shown: list[int] = []

    def show(status: dict[str, Any]) -> None:
        progress = status.get("customStatus") or {}
        if progress.get("total") and (not shown or progress["created"] != shown[-1]):
            shown.append(progress["created"])
            _tell(f"{progress['created']:>4} of {progress['total']} created, {progress['rejected']} rejected")

    status = _watch(http, response.json()["statusQueryGetUri"], show)
    if status["output"].get("created") != BATCH_SIZE:
        raise DemoError(f"the batch should have created {BATCH_SIZE} records: {json.dumps(status['output'])}")
    _tell(f"{status['runtimeStatus']}: {json.dumps(status['output'])}")


def _check(http: httpx.Client, url: str) -> None:
    _say("6", "What the partner counted")
    counters = http.get(f"{url}/sandbox/counters").json()
    for name, expected, what in (
        ("records_stored", BATCH_SIZE + 1, "records stored"),
        ("duplicates", 0, "of them twice"),
        ("token_requests", 1, "token request for all of it"),
        ("unauthorised", 0, "calls refused"),
        ("without_token", 0, "calls without a token"),
    ):
        if counters[name] != expected:
            raise DemoError(f"the partner counted {counters[name]} {what}, not {expected}")
        _tell(f"{counters[name]:>4} {what}")
    print("\nDelivered, once each.")


def _watch(
    http: httpx.Client,
    url: str,
    show: Callable[[dict[str, Any]], None] = lambda _status: None,
) -> dict[str, Any]:
    """Ask for an orchestration's status until it has finished; give the last one."""
    deadline = time.monotonic() + PATIENCE
    while True:
        response = http.get(url)
        if response.status_code not in {200, 202}:
            _expect(response, 200)
        status: dict[str, Any] = response.json()
        show(status)
        if status["runtimeStatus"] in FINISHED:
            if status["runtimeStatus"] != "Completed":
                raise DemoError(f"the orchestration is {status['runtimeStatus']}: {status['output']}")
            return status
        if time.monotonic() > deadline:
            raise DemoError(f"the orchestration is {status['runtimeStatus']} after {PATIENCE:g} s")
        time.sleep(0.05)


def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code != status:
        raise DemoError(f"{response.request.method} {response.url} answered {response.status_code}: {response.text}")


def _expect_taken(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
        raise SampleRefusedError(why_refused(response.json()))
    _expect(response, 202)


def _explain(exc: Exception, host: SandboxProcess) -> None:
    print(f"\nThe demo failed: {exc}", file=sys.stderr)
    print("The host's last lines:", file=sys.stderr)
    for line in host.lines[-30:]:
        print(f"  {line}", file=sys.stderr)


def _keep(host: str, partner: str) -> None:
    one, other = (shlex.quote(json.dumps(business(name), ensure_ascii=False)) for name in ("my-1", "my-2"))
    print(f"""
Everything runs on until Ctrl-C. To try:

  curl -i {host}/api/businesses -H 'Content-Type: application/json' -H 'Idempotency-Key: my-1' \\
       -d {one}
  curl -i {host}/api/businesses -H 'Content-Type: application/json' -H 'Prefer: wait=20' \\
       -d {other}
  curl -s {host}/api/businesses/my-1
  curl -s {host}/api/health
  curl -s {host}/admin/host/status
  curl -s {host}/runtime/webhooks/durabletask/instances
  curl -s {partner}/sandbox/counters
  curl -s {partner}/sandbox/records
  curl -s -X POST {partner}/sandbox/revoke     # every token so far is refused from now on
""")
    threading.Event().wait()


def _say(number: str, words: str) -> None:
    print(f"\n{number}  {words}", flush=True)


def _tell(words: str) -> None:
    print(f"   {words}", flush=True)
