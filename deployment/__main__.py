"""The commands: `python -m deployment package` builds the package, `python -m deployment try` runs it."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deployment.errors import DeploymentError, TrialError
from deployment.output import check_is_ours
from deployment.package import HOST_JSON_OF, Package, chosen_backend
from deployment.requirements import EXTRAS, chosen_extras

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

PROJECT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str], environ: Mapping[str, str], project: Path = PROJECT) -> int:
    """Run a command; return the exit code. Trouble is one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m deployment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    package = commands.add_parser("package", help="write app.zip, and the folder app with the same files")
    package.add_argument(
        "--backend",
        choices=HOST_JSON_OF,
        help="where orchestrations live; the environment's DURABLE_BACKEND, else storage",
    )
    package.add_argument(
        "--extra",
        action="append",
        choices=EXTRAS,
        default=[],
        help="requirements to put in beside those that the environment's WORKER_TELEMETRY and TOKEN_STORE_URL ask for",
    )
    trial = commands.add_parser("try", help="deliver records from the package, with its requirements.txt alone")
    for command in (package, trial):
        command.add_argument("--app", type=Path, default=project, help="folder of the app (default: this project)")
        command.add_argument("--output", type=Path, default=project / "dist", help="folder of app.zip (dist)")
    trial.add_argument("--uv", default="uv", help="the uv that makes the environment")
    options = parser.parse_args(arguments)
    try:
        if options.command == "package":
            backend = options.backend or chosen_backend(environ)
            _package(options.app, options.output, backend, {*options.extra, *chosen_extras(environ)})
        else:
            _try(options)
    except DeploymentError as exc:
        print(f"deployment: {exc}", file=sys.stderr)
        return 1
    return 0


def _try(options: argparse.Namespace) -> None:
    package: Path = options.output / "app.zip"
    if not package.is_file():
        raise TrialError(f"{package} is missing: `make package` writes it")
    # Imported here: whoever packages, as azd does, may have nothing but pathspec. `shared` is that of the app.
    sys.path.insert(0, str(options.app.resolve()))
    trial = importlib.import_module("deployment.trial")
    resources = importlib.import_module("sandbox.resources").load_resources()
    trial.try_package(options.app, package, options.uv, resources)


def _package(app: Path, output: Path, backend: str, extras: Collection[str]) -> None:
    content = Package.of_project(app, backend, extras)
    target, folder = output / "app.zip", output / "app"
    check_is_ours(folder, target)
    content.write_zip(target)
    content.write_folder(folder)
    for path, data in content.files.items():
        print(f"{len(data):>8}  {path}")
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    added = ", ".join(sorted(extras)) or "none"
    print(f"{target}: {len(content.files)} files, durable backend {backend}, extras {added}, sha256 {digest}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
