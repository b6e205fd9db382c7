"""Runs the partners and the app until Ctrl-C, and tells what happens in few lines."""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from os.path import abspath
from typing import TYPE_CHECKING, Any

import httpx

from sandbox.deliveries import commands_to_try, summary
from sandbox.processes import PROJECT, SandboxProcess, StartError, end_as_with_ctrl_c
from sandbox.resources import app_settings, load_resources
from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Log lines of the host and the app: `TIME LEVEL LOGGER: MESSAGE NAME=VALUE …`. The message is constant.
_PROBLEM = re.compile(r"\S+ \S+ (?P<what>(?:WARNING|ERROR|CRITICAL) .*?)(?: \w+=.*)?")
# Seconds for which a problem that was shown is not shown again.
_QUIET = 10.0
FINISHED = {"delivered", "partly", "rejected", "expired", "cancelled", "failed"}
# Seconds between two looks at the deliveries.
PAUSE = 1.0
# How far a delivery's time of creation may lie before the moment at which it is first listed.
_OVERLAP = timedelta(seconds=10)


def main(argv: Sequence[str]) -> int:
    """Run the app and the partners with the options of the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox up",
        description="Run the app and the partners until Ctrl-C. Other options are those of `sandbox partner`.",
    )
    parser.add_argument("--app", default=str(PROJECT), metavar="DIR", help="the app's folder (default: this project)")
    parser.add_argument("--port", type=int, default=7071, help="of the app, 0 for a free one (default: 7071)")
    parser.add_argument("--partner-port", type=int, default=8081, help="0 for a free one (default: 8081)")
    parser.add_argument("--keys", action="store_true", help="ask for function keys, as in Azure")
    parser.add_argument("--store", type=abspath, metavar="FOLDER", help="keep durable state here (default: in memory)")
    parser.add_argument("--verbose", action="store_true", help="show all log lines")
    options, of_partner = parser.parse_known_args(argv)
    end_as_with_ctrl_c()
    try:
        _run(options, of_partner)
    except (StartError, ResourceError) as exc:
        sys.stderr.write(f"sandbox up: {exc}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _run(options: argparse.Namespace, of_partner: Sequence[str]) -> None:
    resources = load_resources()
    log = _show if options.verbose else ProblemLog(_show)
    partner_options = ["--app", options.app, "--port", str(options.partner_port), *of_partner]
    host_options = ["--app", options.app, "--port", str(options.port), *(["--keys"] if options.keys else [])]
    host_options += ["--store", options.store] if options.store else []
    with (
        SandboxProcess("partner", [*partner_options, *(["--verbose"] if options.verbose else [])], log=log) as partner,
        SandboxProcess("host", host_options, app_settings(partner.url, resources), log=log) as host,
    ):
        key = host.function_key() if options.keys else None
        _show(f"app: {host.url}\npartner: {partner.url}")
        if key is not None:
            _show(f"key: {key}")
        _show(commands_to_try(host.url, partner.url, resources, key))
        _show("Ctrl-C ends both. A line for each delivery that ends, and for each problem:")
        headers = {} if key is None else {"x-functions-key": key}
        with httpx.Client(base_url=host.url, headers=headers, timeout=30.0, trust_env=False) as http:
            watch = DeliveryWatch(http, datetime.now(UTC))
            while True:
                started = time.monotonic()
                for status in watch.ended(datetime.now(UTC)):
                    _show(summary(status))
                # A long list is looked at less often: the app has other work.
                threading.Event().wait(max(PAUSE, 5 * (time.monotonic() - started)))


class DeliveryWatch:
    """Finds the deliveries that have ended since the last look, in the app's list of deliveries.

    It asks only for deliveries that are newer than the oldest one which has not ended.
    """

    def __init__(self, http: httpx.Client, since: datetime) -> None:
        self._http = http
        self._since = since
        self._told: dict[str, datetime] = {}

    def ended(self, now: datetime) -> Iterator[dict[str, Any]]:
        """Yield each delivery that has ended and was not yielded before."""
        oldest = now - _OVERLAP
        try:
            for status in self._listed():
                created = datetime.fromisoformat(status["createdTime"])
                if status["state"] not in FINISHED:
                    oldest = min(oldest, created)
                elif self._told.get(status["id"]) != created:
                    self._told[status["id"]] = created
                    yield status
        except (httpx.HTTPError, KeyError, ValueError):
            return  # the host is starting its worker again, or ends: the next look sees what this one missed
        self._since = max(self._since, oldest)
        # The list may begin a little earlier than asked for.
        kept = self._since - _OVERLAP
        self._told = {id_: created for id_, created in self._told.items() if created >= kept}

    def _listed(self) -> Iterator[dict[str, Any]]:
        url, query = "/api/deliveries", {"from": self._since.isoformat(), "top": "100"}
        while url:
            page = self._http.get(url, params=query or None).raise_for_status().json()
            yield from page["deliveries"]
            url, query = page.get("nextLink", ""), {}


class ProblemLog:
    """Shows log lines that tell of a problem; one that comes again within seconds only with how often it came.

    It is called from the threads that read the lines. `clock` gives seconds.
    """

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._lock = threading.Lock()
        # When each problem was shown, and how often it has come since.
        self._shown: dict[str, tuple[float, int]] = {}

    def __call__(self, line: str) -> None:
        """Take a log line."""
        if not (problem := _PROBLEM.fullmatch(line)):
            return
        with self._lock:
            now, what = self._clock(), problem["what"]
            shown_at, count = self._shown.get(what, (-_QUIET, 0))
            if now - shown_at < _QUIET:
                self._shown[what] = (shown_at, count + 1)
                return
            self._shown[what] = (now, 0)
            self._show(f"{line} ({count} more like this before)" if count else line)


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
