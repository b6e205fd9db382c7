"""`python -m sandbox settings`: the local.settings.json with which the app's partners are the sandbox's."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from sandbox.resources import load_resources, sandbox_settings
from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the Core Tools ask for; Azurite is the storage.
_OF_THE_PLATFORM = {"FUNCTIONS_WORKER_RUNTIME": "python", "AzureWebJobsStorage": "UseDevelopmentStorage=true"}


def main(argv: Sequence[str]) -> int:
    """Print the file; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox settings", description="Print a local.settings.json.")
    parser.add_argument("--app", metavar="DIR", help="the app's folder (default: this project)")
    parser.add_argument("--partner-port", type=int, default=8081, help="where the partners listen (default: 8081)")
    options = parser.parse_args(argv)
    try:
        of_partners = sandbox_settings(f"http://127.0.0.1:{options.partner_port}", load_resources())
    except ResourceError as exc:
        sys.stderr.write(f"sandbox settings: {exc}\n")
        return 1
    settings = {"IsEncrypted": False, "Values": _OF_THE_PLATFORM | of_partners}
    sys.stdout.write(json.dumps(settings, indent=2) + "\n")
    return 0
