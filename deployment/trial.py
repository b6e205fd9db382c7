"""Tries a package as Azure runs it: in a new environment with its requirements.txt alone, from a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# What stands in for Azure in the trial: the worker's runtime, and what the sandbox's host is made of.
PLATFORM = ("azure-functions-runtime", "cronsim", "durabletask", "httptools", "starlette", "uvicorn")
START_SECONDS = 60.0
DELIVERY_SECONDS = 60.0
POLL_SECONDS = 0.1
BUSINESS = {"externalId": "package-trial", "name": "Package trial"}


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
        imports = "import sys; sys.path.insert(0, sys.argv[1]); import function_app"
        _run([str(python), "-I", "-B", "-c", imports, str(app)])
        print("The app can be imported with requirements.txt alone")
        _add_platform(project, folder, python, uv)
        with contextlib.ExitStack() as processes:
            command = [sys.executable, *_SANDBOX, "partner"]
            partner = processes.enter_context(server(command, project, folder / "partner.log", {}))
            command = [str(python), *_SANDBOX, "host", "--app", str(app)]
            settings = trial_settings(partner, os.environ)
            host = processes.enter_context(server(command, project, folder / "host.log", settings))
            deliver(host, partner)
        print(f"The package delivered {BUSINESS['externalId']!r} exactly once")


_SANDBOX = ("-B", "-m", "sandbox")


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


def trial_settings(partner: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the app settings for the sandbox's partner; those of a deployment that are in `environ` are put aside."""
    aside = dict.fromkeys(
        (name for name in environ if name.startswith(("BUSINESS_API_", "DELIVERY_", "TOKEN_STORE_"))), ""
    )
    return aside | {
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


@contextlib.contextmanager
def server(
    command: Sequence[str], project: Path, log: Path, settings: Mapping[str, str], *, patience: float = START_SECONDS
) -> Iterator[str]:
    """Run a server of the sandbox on a free port; gives its URL, which it prints when it listens.

    Raises:
        TrialError: it ends, or it does not listen within `patience` seconds.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603, commands of this module
            [*command, "--port", "0"], cwd=project, env={**os.environ, **settings}, stdout=output, stderr=output
        )
        try:
            yield _wait_for_url(process, log, patience)
        finally:
            process.terminate()
            process.wait(timeout=START_SECONDS)


def _wait_for_url(process: subprocess.Popen[bytes], log: Path, patience: float) -> str:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := re.search(r"^\w+: (http://\S+)$", log.read_text(encoding="utf-8"), re.MULTILINE):
            return found[1]
        if process.poll() is not None:
            raise TrialError(f"the sandbox's {log.stem} ended with {process.returncode}:\n{_text(log)}")
        time.sleep(POLL_SECONDS)
    raise TrialError(f"the sandbox's {log.stem} did not start in {patience:g} s:\n{_text(log)}")


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()


def deliver(host: str, partner: str, *, patience: float = DELIVERY_SECONDS) -> None:
    """Post `BUSINESS` to the app at `host` and see it arrive at `partner`, once.

    Raises:
        TrialError: it is refused, fails, takes longer than `patience` seconds, or does not arrive exactly once.
    """
    with httpx.Client(timeout=DELIVERY_SECONDS) as client:
        accepted = client.post(f"{host}/api/businesses", json=BUSINESS)
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
