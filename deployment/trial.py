"""Tries a package as Azure runs it: in a new environment with its requirements.txt alone, from a folder of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from deployment.errors import TrialError
from deployment.requirements import pin, requirement_lines
from deployment.trial_server import POLL_SECONDS, server
from sandbox.sample import business, why_refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What stands in for Azure in the trial: the worker's runtime, and what the sandbox's host is made of.
PLATFORM = ("azure-functions-runtime", "cronsim", "durabletask", "httptools", "starlette", "uvicorn")
# The settings of the app, of its telemetry, its durable store and its host.
SETTINGS = (
    "BUSINESS_API_",
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
DELIVERY_SECONDS = 60.0
EXTERNAL_ID = "package-trial"


def try_package(project: Path, package: Path, uv: str) -> None:
    """Deliver one business from `package` and print each step that went well.

    Raises:
        TrialError: a step went wrong; the text says which, and how.
    """
    if not package.is_file():
        raise TrialError(f"{package} is missing: `make package` writes it")
    with tempfile.TemporaryDirectory(prefix="business-relay-") as name:
        folder = Path(name)
        app = folder / "app"
        with zipfile.ZipFile(package) as archive:
            archive.extractall(app)
        python = _make_environment(project, app / "requirements.txt", folder, uv)
        modules = ["function_app", *_modules_of(project)]
        _run([str(python), "-I", "-B", "-c", IMPORTS, str(app), *modules])
        print(f"The app's {len(modules)} modules can be imported with requirements.txt alone")
        _add_platform(project, folder, python, uv)
        environ = trial_environment(os.environ)
        with contextlib.ExitStack() as processes:
            command = [sys.executable, *_SANDBOX, "partner"]
            partner = processes.enter_context(server(command, project, folder / "partner.log", environ))
            command = [str(python), *_SANDBOX, "host", "--app", str(app)]
            environ |= trial_settings(partner)
            host = processes.enter_context(server(command, project, folder / "host.log", environ))
            deliver(host, partner)
        print(f"The package delivered {EXTERNAL_ID!r} exactly once")


_SANDBOX = ("-B", "-m", "sandbox")


def _modules_of(project: Path) -> list[str]:
    """Give the modules that the project has below shared/, those too that nothing imports before it needs them."""
    paths = (path.relative_to(project).with_suffix("") for path in (project / "shared").rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def _make_environment(project: Path, requirements: Path, folder: Path, uv: str) -> Path:
    python = folder / "environment" / "bin" / "python"
    version = (project / ".python-version").read_text(encoding="utf-8").strip()
    _run([uv, "venv", "--quiet", "--python", version, str(folder / "environment")])
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
    _run([*install, "--requirement", str(requirements)])
    installed = _run([uv, "pip", "freeze", "--python", str(python)]).splitlines()
    pinned = set(map(pin, requirement_lines(requirements.read_text(encoding="utf-8"))))
    if unpinned := sorted(set(map(pin, installed)) - pinned):
        raise TrialError(f"requirements.txt leaves it open which version is installed: {', '.join(unpinned)}")
    print(f"requirements.txt is installed into a new environment: {len(installed)} packages, each pinned and hashed")
    return python


def _add_platform(project: Path, folder: Path, python: Path, uv: str) -> None:
    """Put the packages of the platform behind those of the app, as the worker in Azure does."""
    platform = folder / "platform"
    constraints = project / "requirements-dev.txt"
    install = [uv, "pip", "install", "--quiet", "--python", str(python), "--target", str(platform)]
    _run([*install, "--constraint", str(constraints), *PLATFORM])
    site = _run([str(python), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    (Path(site) / "platform.pth").write_text(f"{platform}\n", encoding="utf-8")


def trial_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the environment without the settings of a deployment: the trial goes nowhere but to the sandbox."""
    return {name: value for name, value in environ.items() if not name.startswith(SETTINGS)}


def trial_settings(partner: str) -> dict[str, str]:
    """Give the app settings for the sandbox's partner."""
    return {
        "BUSINESS_API_URL": partner,
        "BUSINESS_API_TOKEN_URL": f"{partner}/auth/token",
        "BUSINESS_API_CLIENT_ID": "sandbox-client",
        "BUSINESS_API_CLIENT_SECRET": "sandbox-secret",
    }


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, commands of this module
    if finished.returncode:
        raise TrialError(f"{' '.join(command)} ended with {finished.returncode}:\n{finished.stderr.strip()}")
    return finished.stdout


def deliver(host: str, partner: str, *, patience: float = DELIVERY_SECONDS) -> None:
    """Post the sandbox's sample to the app at `host` and see it arrive at `partner`, once.

    Raises:
        TrialError: it is refused, fails, takes longer than `patience` seconds, or does not arrive exactly once.
    """
    with httpx.Client(timeout=DELIVERY_SECONDS) as client:
        accepted = client.post(f"{host}/api/businesses", json=business(EXTERNAL_ID))
        if accepted.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            raise TrialError(why_refused(accepted.json()))
        if accepted.status_code != httpx.codes.ACCEPTED:
            raise TrialError(f"the app answered {accepted.status_code}, not 202: {accepted.text}")
        status = _wait_for_end(client, accepted.json()["statusQueryGetUri"], patience)
        if status["runtimeStatus"] != "Completed":
            raise TrialError(f"the delivery ended as {status['runtimeStatus']}: {status.get('output')}")
        records = client.get(f"{partner}/sandbox/records").json()
        if records["count"] != 1:
            raise TrialError(f"the partner has {records['count']} records, not 1: {records}")


def _wait_for_end(client: httpx.Client, url: str, patience: float) -> dict[str, object]:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        response = client.get(url)
        if response.status_code != httpx.codes.ACCEPTED:
            status: dict[str, object] = response.json()
            return status
        time.sleep(POLL_SECONDS)
    raise TrialError(f"the delivery has not ended in {patience:g} s")
