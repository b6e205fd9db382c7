"""The command that runs the partners alone: `python -m sandbox partner`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from sandbox.partner.client_authentication import public_key
from sandbox.partner.faults import AnyFault, Drop, Latency, Status, faults_from_json
from sandbox.partner.server import PortInUseError, serve
from sandbox.partner.state import PartnerConfig
from sandbox.resources import load_resources
from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.resource import Resource

DEFAULT_PORT = 8081
MAX_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the partner's options to a parser."""
    defaults = PartnerConfig()
    add = parser.add_argument
    add("--port", type=_port, default=DEFAULT_PORT, help="loopback port, 0 for a free one (default: %(default)s)")
    add("--app", metavar="DIR", help="folder with the app whose shared/partner.py is served (default: this project)")
    add("--client-id", help="the OAuth2 client of every partner (default: sandbox-client-<partner>)")
    add("--client-secret", help="its secret (default: sandbox-secret-<partner>)")
    add("--client-public-key", type=_public_key, metavar="FILE", help="PEM of its key or certificate: private_key_jwt")
    add("--token-lifetime", type=_lifetime, default=defaults.token_lifetime, metavar="SECONDS")
    add("--expires-in", choices=("number", "string", "omitted"), default=defaults.expires_in)
    add("--scope", action="append", metavar="SCOPE", help="a scope that may be asked for, repeatable (default: any)")
    idempotency = ("described", "honour", "ignore")
    add(
        "--idempotency",
        choices=idempotency,
        default=defaults.idempotency,
        help="of keys; default: as described",
    )
    add("--unique-ids", action="store_true", help="answer 409 to a second record with an id")
    add("--latency", type=_latency, metavar="SECONDS", help="of the API, a number or a range: 0.05 or 0.01-0.2")
    add("--seed", type=int, default=defaults.seed, help="of everything random (default: %(default)s)")
    add("--token-down", type=_seconds, metavar="SECONDS", help="from the start the token endpoint is down so long")
    add("--api-down", type=_seconds, metavar="SECONDS", help="from the start the API is down so long")
    add("--down-by", choices=("status", "drop"), default="status", help="answer 503, or drop connections")
    add("--fault", type=_fault, action="append", default=[], metavar="JSON", help="a fault to start with, repeatable")
    add("--faults", type=_faults, default=(), metavar="FILE", help="JSON array of faults to start with")
    add("--verbose", action="store_true", help="log each request to stderr")


def config_from(options: argparse.Namespace, resources: Sequence[Resource]) -> PartnerConfig:
    """Return the configuration that the options of `add_arguments` describe."""
    faults: list[AnyFault] = []
    if options.token_down is not None:
        faults.append(_down("token", options.token_down, options.down_by))
    if options.api_down is not None:
        faults.append(_down("api", options.api_down, options.down_by))
    faults.extend([*options.faults, *options.fault])
    if options.latency is not None:
        faults.append(Latency(route="api", seconds=options.latency))
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
        faults=tuple(faults),
        seed=options.seed,
    )


def run(options: argparse.Namespace) -> int:
    """Run the partners until SIGINT or SIGTERM; return the exit code.

    When they listen, `partner: <base URL>` stands on stdout.
    """
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the partners with the options of the command line."""
    parser = argparse.ArgumentParser(prog="sandbox partner", description="The partners' APIs, in the sandbox.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _announce(base_url: str) -> None:
    sys.stdout.write(f"partner: {base_url}\n")
    sys.stdout.flush()


def _down(route: Literal["token", "api"], seconds: float, how: Literal["status", "drop"]) -> AnyFault:
    if how == "drop":
        return Drop(route=route, window=(0.0, seconds))
    return Status(route=route, status=503, window=(0.0, seconds))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, not {text!r}")
    return seconds


def _lifetime(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected whole seconds above 0, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to {MAX_PORT}, not {text!r}")
    return int(text)


def _latency(text: str) -> float | tuple[float, float]:
    least, dash, most = text.partition("-")
    if not dash:
        return _seconds(text)
    if _seconds(least) > _seconds(most):
        raise argparse.ArgumentTypeError(f"expected a range from less to more, not {text!r}")
    return _seconds(least), _seconds(most)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{path}: {exc.strerror}") from exc


def _public_key(path: str) -> str:
    try:
        pem = _read(path).decode()
        public_key(pem)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{path}: {exc}") from exc
    return pem


def _faults(path: str) -> tuple[AnyFault, ...]:
    try:
        return faults_from_json(_read(path))
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise argparse.ArgumentTypeError(f"{path}: {exc}") from exc


def _fault(text: str) -> AnyFault:
    try:
        (fault,) = faults_from_json(text.encode())
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"expected one fault as JSON: {exc}") from exc
    return fault
