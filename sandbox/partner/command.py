"""The command that runs the partners alone: `python -m sandbox partner`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.partner.client_authentication import public_key
from sandbox.partner.faults import faults_from_json
from sandbox.partner.server import PortInUseError, serve
from sandbox.partner.state import PartnerConfig
from sandbox.resources import load_resources
from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox.partner.faults import AnyFault
    from shared.resource import Resource

MAX_PORT = 65535


def main(argv: Sequence[str] | None = None) -> int:
    """Run the partners until SIGINT or SIGTERM with the options of the command line; return the exit code.

    When they listen, `partner: <base URL>` stands on stdout.
    """
    options = parser().parse_args(argv)
    # Uvicorn's own steps say nothing about the partners; its warnings do.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(serve(config_from(options, load_resources()), options.port, announce=_announce))
    except (PortInUseError, ResourceError) as exc:
        sys.stderr.write(f"sandbox partner: {exc}\n")
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the partners' options."""
    made = argparse.ArgumentParser(prog="sandbox partner", description="The partners' APIs, in the sandbox.")
    defaults, add = PartnerConfig(), made.add_argument
    add("--app", metavar="DIR", help="folder of the app whose shared/partner.py is served (default: this project)")
    add("--port", type=_port, default=8081, help="loopback port, 0 for a free one (default: %(default)s)")
    add("--client-id", help="the OAuth2 client of every partner (default: sandbox-client-<partner>)")
    add("--client-secret", help="its secret (default: sandbox-secret-<partner>)")
    add("--client-public-key", type=_public_key, metavar="FILE", help="PEM of its key or certificate: private_key_jwt")
    add("--token-lifetime", type=int, default=defaults.token_lifetime, metavar="SECONDS")
    add("--expires-in", choices=("number", "string", "omitted"), default=defaults.expires_in)
    add("--scope", action="append", metavar="SCOPE", help="a scope that may be asked for, repeatable (default: any)")
    idempotency = ("described", "honour", "ignore")
    add("--idempotency", choices=idempotency, default=defaults.idempotency, help="of keys (default: %(default)s)")
    add("--unique-ids", action="store_true", help="answer 409 to a second record with an id")
    add("--seed", type=int, default=defaults.seed, help="of everything random (default: %(default)s)")
    add(
        "--fault",
        type=_faults,
        action="extend",
        default=[],
        metavar="JSON",
        help="a fault to start with, or an array of them, as JSON or @FILE; repeatable",
    )
    add("--verbose", action="store_true", help="log each request to stderr")
    return made


def config_from(options: argparse.Namespace, resources: Sequence[Resource]) -> PartnerConfig:
    """Return the configuration that the options describe."""
    return PartnerConfig(
        resources=resources,
        client_id=options.client_id,
        client_secret=options.client_secret,
        client_public_key=options.client_public_key,
        token_lifetime=options.token_lifetime,
        expires_in=options.expires_in,
        scopes=None if options.scope is None else frozenset(options.scope),
        idempotency=options.idempotency,
        unique_ids=options.unique_ids,
        faults=tuple(options.fault),
        seed=options.seed,
    )


def _announce(base_url: str) -> None:
    sys.stdout.write(f"partner: {base_url}\n")
    sys.stdout.flush()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to {MAX_PORT}, not {text!r}")
    return int(text)


def _public_key(path: str) -> str:
    try:
        pem = Path(path).read_text(encoding="ascii")
        public_key(pem)
    except (OSError, ValueError) as exc:
        raise argparse.ArgumentTypeError(f"{path}: {exc}") from exc
    return pem


def _faults(text: str) -> tuple[AnyFault, ...]:
    try:
        return faults_from_json(Path(text[1:]).read_bytes() if text.startswith("@") else text.encode())
    except (OSError, ValueError) as exc:
        raise argparse.ArgumentTypeError(f"{text[:200]}: {exc}") from exc
