"""The commands: `python -m deployment package` builds the package, `python -m deployment try` runs it."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deployment.package import HOST_JSON_OF, Package, PackageError
from deployment.trial import TrialError, try_package

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROJECT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str], environ: Mapping[str, str], project: Path = PROJECT) -> int:
    """Run a command; gives the exit code. Trouble is one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m deployment", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    package = commands.add_parser("package", help="write app.zip, and the folder app with the same files")
    package.add_argument(
        "--backend",
        choices=HOST_JSON_OF,
        default=environ.get("DURABLE_BACKEND") or "storage",
        help="where orchestrations live; the environment's DURABLE_BACKEND, else storage",
    )
    trial = commands.add_parser("try", help="deliver a business from the package, with requirements.txt alone")
    for command in (package, trial):
        command.add_argument("--output", type=Path, default=project / "dist", help="folder of app.zip (dist)")
    trial.add_argument("--uv", default="uv", help="the uv that makes the environment")
    options = parser.parse_args(arguments)
    try:
        if options.command == "package":
            _package(project, options.output, options.backend)
        else:
            try_package(project, options.output / "app.zip", options.uv)
    except (PackageError, TrialError) as exc:
        print(f"deployment: {exc}", file=sys.stderr)
        return 1
    return 0


def _package(project: Path, output: Path, backend: str) -> None:
    content = Package.of_project(project, backend)
    target = output / "app.zip"
    content.write_zip(target)
    content.write_folder(output / "app")
    for path, data in content.files.items():
        print(f"{len(data):>8}  {path}")
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    print(f"{target}: {len(content.files)} files, durable backend {backend}, sha256 {digest}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
