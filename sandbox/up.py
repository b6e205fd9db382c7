"""Runs the partner and the app together until Ctrl-C."""

from __future__ import annotations

import sys
import threading

from sandbox.processes import SandboxProcess, StartError, app_settings


def up(*, port: int, partner_port: int) -> int:
    """Run both; give the exit code. Their log lines go to stderr, each with the name of its process."""
    try:
        with (
            SandboxProcess("partner", ["--port", str(partner_port), "--verbose"], log=sys.stderr) as partner,
            SandboxProcess("host", ["--port", str(port)], app_settings(partner.url), log=sys.stderr) as host,
        ):
            sys.stdout.write(f"app: {host.url}\npartner: {partner.url}\nCtrl-C ends both.\n")
            sys.stdout.flush()
            threading.Event().wait()
    except StartError as exc:
        sys.stderr.write(f"sandbox up: {exc}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0
