"""Tries a package as Azure runs it: in a new environment with its requirements.txt alone, from a folder of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx

from deployment.errors import TrialError
from deployment.requirements import pin, requirement_lines
from sandbox.deliveries import DeliveryError, check_stored, delivered, send
from sandbox.processes import PROJECT, SandboxProcess, StartError
from sandbox.resources import partners_of, sandbox_settings
from sandbox.sample import sample_record
from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.resource import Resource

# What stands in for Azure in the trial: the worker's runtime, and what the sandbox's host is made of.
PLATFORM = ("azure-functions-runtime", "cronsim", "durabletask", "httptools", "starlette", "uvicorn")
# Beginnings of settings of the app, its telemetry, its durable store and its host; each partner has one of its own.
SETTINGS = (
    "DELIVERY_",
    "TOKEN_STORE_",
    "APPLICATIONINSIGHTS_",
    "OTEL_",
    "PYTHON_APPLICATIONINSIGHTS_",
    "PYTHON_ENABLE_OPENTELEMETRY",
    "AzureWebJobs",
    "AzureFunctionsJobHost__",
    "DURABLE_TASK_SCHEDULER_",
)
IMPORTS = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
"""
# For a package whose imports are not cached yet.
DELIVERY_SECONDS = 60.0


def try_package(app: Path, package: Path, uv: str, resources: Sequence[Resource]) -> None:
    """Deliver a record through every route of `package` and print each step that went well.

    `app` is the folder that was packaged, and `resources` are those of its `shared/partner.py`.

    Raises:
        TrialError: a step went wrong; the text says which, and how.
    """
    with tempfile.TemporaryDirectory(prefix="business-relay-") as name:
        folder = Path(name)
        unpacked = folder / "app"
        with zipfile.ZipFile(package) as archive:
            archive.extractall(unpacked)
        python = _make_environment(unpacked / "requirements.txt", folder, uv)
        modules = ["function_app", *_modules_of(app)]
        _run([str(python), "-I", "-B", "-c", IMPORTS, str(unpacked), *modules])
        print(f"The app's {len(modules)} modules can be imported with requirements.txt alone")
        _add_platform(folder, python, uv)
        without = dict.fromkeys(deployment_settings(os.environ, resources))
        options = ["--app", str(unpacked), "--port", "0"]
        try:
            with SandboxProcess("partner", options, without) as partner:
                environ = without | sandbox_settings(partner.url, resources)
                with SandboxProcess("host", options, environ, python=python) as host:
                    deliver(host, partner.url, resources)
        except StartError as exc:
            raise TrialError(str(exc)) from exc


def _modules_of(app: Path) -> list[str]:
    """Return the modules below shared/, also those that nothing imports before it needs them."""
    paths = (path.relative_to(app).with_suffix("") for path in (app / "shared").rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def _make_environment(requirements: Path, folder: Path, uv: str) -> Path:
    python = folder / "environment" / "bin" / "python"
    version = (PROJECT / ".python-version").read_text(encoding="utf-8").strip()
    _run([uv, "venv", "--quiet", "--python", version, str(folder / "environment")])
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
    _run([*install, "--requirement", str(requirements)])
    installed = _run([uv, "pip", "freeze", "--python", str(python)]).splitlines()
    pinned = set(map(pin, requirement_lines(requirements.read_text(encoding="utf-8"))))
    if unpinned := sorted(set(map(pin, installed)) - pinned):
        raise TrialError(f"requirements.txt leaves it open which version is installed: {', '.join(unpinned)}")
    print(f"requirements.txt is installed into a new environment: {len(installed)} packages, each pinned and hashed")
    return python


def _add_platform(folder: Path, python: Path, uv: str) -> None:
    """Put the packages of the platform behind those of the app, as the worker in Azure does."""
    platform = folder / "platform"
    constraints = PROJECT / "requirements-dev.txt"
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--target", str(platform)]
    _run([*install, "--constraint", str(constraints), *PLATFORM])
    site = _run([str(python), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    (Path(site) / "platform.pth").write_text(f"{platform}\n", encoding="utf-8")


def deployment_settings(environ: Mapping[str, str], resources: Sequence[Resource]) -> list[str]:
    """Return the names of settings that a deployment may have left: the trial goes nowhere but to the sandbox."""
    prefixes = (*SETTINGS, *(f"{partner.name}_" for partner in partners_of(resources)))
    return [name for name in environ if name.startswith(prefixes)]


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, commands of this module
    if finished.returncode:
        raise TrialError(f"{' '.join(command)} ended with {finished.returncode}:\n{finished.stderr.strip()}")
    return finished.stdout


class Host(Protocol):
    """Where the app listens, and the lines that its host has written."""

    @property
    def url(self) -> str: ...  # noqa: D102, the class says it
    @property
    def lines(self) -> Sequence[str]: ...  # noqa: D102


def deliver(host: Host, partner_url: str, resources: Sequence[Resource]) -> None:
    """Send a record to every route of the app and see each arrive once.

    Raises:
        TrialError: one is refused, is not delivered in time, or does not arrive exactly once.
    """
    stored: dict[str, set[str]] = {}
    try:
        with httpx.Client(timeout=DELIVERY_SECONDS, trust_env=False) as http:
            for resource in resources:
                one, other = sample_record(resource, 1), sample_record(resource, 2)
                url = f"{host.url}/api/{resource.route}"
                for link in (send(http, url, one), send(http, f"{url}/batch", [other])):
                    delivered(http, link, patience=DELIVERY_SECONDS)
                stored[resource.name] = {str(record[resource.id_member]) for record in (one, other)}
                print(f"/api/{resource.route} and /api/{resource.route}/batch delivered a record each")
            for sentence in check_stored(http, partner_url, stored):
                print(sentence.strip())
    except (DeliveryError, ResourceError, httpx.HTTPError) as exc:
        raise TrialError("\n".join([str(exc), "The host's last lines:", *host.lines[-30:]])) from exc
