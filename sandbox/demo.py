"""The demo: records of each type and a batch, from an HTTP request to the partners' stores, told step by step."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import uuid
from os.path import abspath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from sandbox.deliveries import DeliveryError, check_stored, commands_to_try, delivered, send, summary
from sandbox.processes import PROJECT, SandboxProcess, StartError, end_as_with_ctrl_c
from sandbox.resources import app_settings, base_path, load_resources, partners_of
from sandbox.sample import sample_record
from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.resource import Resource

BATCH_SIZE = 200


def main(argv: Sequence[str]) -> int:
    """Run the demo with the options of the command line; return the exit code, 0 if every record is stored once."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox demo", description="Deliver a record of each type and a batch, and show each step."
    )
    parser.add_argument("--app", default=str(PROJECT), metavar="DIR", help="the app's folder (default: this project)")
    parser.add_argument("--keep", action="store_true", help="leave everything running, and say what to try")
    parser.add_argument("--store", type=abspath, metavar="FOLDER", help="keep durable state here (default: in memory)")
    parser.add_argument("--verbose", action="store_true", help="show the log lines of the app and the partners")
    options, of_partner = parser.parse_known_args(argv)
    end_as_with_ctrl_c()
    try:
        return _run(load_resources(), options, of_partner)
    except (StartError, ResourceError) as exc:
        print(f"\nThe demo failed: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nEnded.")
        return 0


def _run(resources: list[Resource], options: argparse.Namespace, of_partner: Sequence[str]) -> int:
    for resource in resources:
        sample_record(resource, 1)  # better now than when everything has been started
    names = ", ".join(f"{partner.name} at {base_path(partner)}" for partner in partners_of(resources))
    show = _show_log if options.verbose else None
    _say(f"Starting the partners: HTTP APIs behind OAuth2, each with its token endpoint ({names})")
    arguments = ["--app", options.app, "--port", "0"]
    with SandboxProcess("partner", [*arguments, *of_partner], log=show) as partner:
        _tell(f"listen on {partner.url}")
        _say("Starting the app, as it is deployed, under the sandbox's Functions host")
        host_options = [*arguments, *(["--store", options.store] if options.store else [])]
        with SandboxProcess("host", host_options, app_settings(partner.url, resources), log=show) as host:
            _tell(f"listens on {host.url}")
            try:
                with httpx.Client(timeout=30.0, trust_env=False) as http:  # no proxy is on the way to us
                    _show_deliveries(http, host.url, partner.url, resources)
            except (DeliveryError, httpx.HTTPError, KeyError, ValueError) as exc:
                print(f"\nThe demo failed: {exc}\nThe host's last lines:", file=sys.stderr)
                print("\n".join(f"  {line}" for line in host.lines[-30:]), file=sys.stderr)
                return 1
            print("\nDelivered, once each.")
            if options.keep:
                print(f"\nEverything runs on until Ctrl-C.\n{commands_to_try(host.url, partner.url, resources, None)}")
                sys.stdout.flush()
                threading.Event().wait()
    return 0


def _show_deliveries(http: httpx.Client, host: str, partner: str, resources: Sequence[Resource]) -> None:
    stored: dict[str, set[str]] = {}
    for resource in resources:
        stored[resource.name] = {_deliver_one(http, host, resource)}
    stored[resources[0].name] |= _deliver_batch(http, host, resources[0])
    _say("What the partners counted")
    for sentence in check_stored(http, partner, stored):
        _tell(sentence)


def _deliver_one(http: httpx.Client, host: str, resource: Resource) -> str:
    record = sample_record(resource, 1)
    id_ = str(record[resource.id_member])
    _say(f"POST /api/{resource.route}: one record")
    _tell(json.dumps(record, ensure_ascii=False))
    url = f"{host}/api/{resource.route}"
    # With a store the host knows the keys of the last demo.
    key = f"demo-{uuid.uuid4()}"
    link = send(http, url, record, key=key)
    _tell(f"202 Accepted; {link} tells how it goes")
    _tell(summary(delivered(http, link)))
    if send(http, url, record, key=key) != link:
        raise DeliveryError("the same Idempotency-Key should name the same delivery")
    _tell("sent again with the same Idempotency-Key: the same delivery, nothing arrives twice")
    if resource.look_up is not None:
        _say(f"GET /api/{resource.route}/{quote(id_, safe='')}: the partner's record, through the app")
        found = http.get(f"{url}/{quote(id_, safe='')}").raise_for_status()
        _tell(found.text)
    return id_


def _deliver_batch(http: httpx.Client, host: str, resource: Resource) -> set[str]:
    batch = [sample_record(resource, number) for number in range(2, 2 + BATCH_SIZE)]
    _say(f"POST /api/{resource.route}/batch: {BATCH_SIZE} records at once")
    shown: list[int] = []

    def show(status: dict[str, Any]) -> None:
        if status.get("created", 0) not in {0, *shown}:
            shown.append(status["created"])
            _tell(f"{status['created']:>4} of {status['total']} created, {status.get('rejected', 0)} rejected")

    _tell(summary(delivered(http, send(http, f"{host}/api/{resource.route}/batch", batch), show=show)))
    return {str(record[resource.id_member]) for record in batch}


def _say(words: str) -> None:
    print(f"\n{words}", flush=True)


def _tell(words: str) -> None:
    print(f"   {words}", flush=True)


def _show_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
