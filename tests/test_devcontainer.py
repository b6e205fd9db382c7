"""The dev container installs the Core Tools from their release, and only a verified download."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
INSTALL = PROJECT / ".devcontainer" / "install-core-tools"


class Release:
    """A release of the Core Tools, with a `curl` that reads it from the disk."""

    def __init__(self, folder: Path, *, machine: str = "x86_64") -> None:
        self.folder = folder
        self.zip = folder / "core-tools.zip"
        with zipfile.ZipFile(self.zip, "w") as archive:
            archive.writestr("func", "#!/bin/sh\necho 4.0\n")
        self.assets: list[dict[str, object]] = [self.asset("linux-x64"), self.asset("win-x64")]
        self._command(
            "curl",
            f'for last; do :; done\ncase "$last" in *tags*) cat {folder}/release.json ;; *) cp {self.zip} "$6" ;; esac',
        )
        self._command("uname", f"echo {machine}")

    def asset(self, platform: str) -> dict[str, object]:
        digest = hashlib.sha256(self.zip.read_bytes()).hexdigest()
        name = f"Azure.Functions.Cli.{platform}.4.13.0.zip"
        return {"name": name, "browser_download_url": f"https://example/{name}", "digest": f"sha256:{digest}"}

    def _command(self, name: str, script: str) -> None:
        path = self.folder / "commands" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def install(self) -> subprocess.CompletedProcess[str]:
        (self.folder / "release.json").write_text(json.dumps({"assets": self.assets}))
        environment = {"PATH": f"{self.folder / 'commands'}{os.pathsep}{os.environ['PATH']}"}
        command = [str(INSTALL), str(self.folder / "tools"), str(self.folder / "bin")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603, a command of this test


def test_the_core_tools_are_installed_from_the_release(tmp_path: Path) -> None:
    outcome = Release(tmp_path).install()
    assert outcome.returncode == 0, outcome.stderr
    installed = subprocess.run([str(tmp_path / "bin" / "func")], capture_output=True, text=True, check=True)  # noqa: S603, a command of this test
    assert installed.stdout == "4.0\n"


@pytest.mark.parametrize("digest", [None, "sha512:00"])
def test_a_release_without_a_checksum_is_not_installed(tmp_path: Path, digest: str | None) -> None:
    release = Release(tmp_path)
    release.assets[0]["digest"] = digest
    outcome = release.install()
    assert outcome.returncode != 0
    assert outcome.stderr == "install-core-tools: the release has no checksum to verify the download with\n"
    assert not (tmp_path / "bin" / "func").exists()


def test_a_damaged_download_is_not_installed(tmp_path: Path) -> None:
    release = Release(tmp_path)
    release.assets[0]["digest"] = f"sha256:{'0' * 64}"
    assert release.install().returncode != 0
    assert not (tmp_path / "bin" / "func").exists()


@pytest.mark.parametrize(
    ("machine", "problem"),
    [
        ("aarch64", "the release has 0 files for linux-arm64, not 1"),
        ("riscv64", "there are no Core Tools for riscv64"),
    ],
)
def test_a_machine_without_core_tools_is_told_so(tmp_path: Path, machine: str, problem: str) -> None:
    outcome = Release(tmp_path, machine=machine).install()
    assert outcome.returncode != 0
    assert problem in outcome.stderr
