"""The command by which infra/README.md has the client secret handed to azd sets it, and shows it nowhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "infra" / "README.md").read_text(encoding="utf-8")
NAME = "BUSINESS_API_CLIENT_SECRET"


def documented() -> str:
    """Give the line of the first deployment that sets the secret, as it stands there."""
    section = PAGE[PAGE.index("## First deployment") :]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if f"export {NAME}" in block]
    # What comes after it would be read as the secret where somebody pastes the whole block.
    return str(block.splitlines()[-1])


@pytest.mark.parametrize("shell", [shell for shell in ("bash", "zsh") if shutil.which(shell)])
@pytest.mark.parametrize("secret", ["s3cret", r" sp ace\n\\ $HOME `x` "])
def test_the_secret_that_is_typed_is_what_a_command_afterwards_is_given(shell: str, secret: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name != NAME}
    script = f"{documented()}\nprintenv {NAME} | wc -c\nexec env >&2"
    outcome = subprocess.run(  # noqa: S603, the line of the page
        [shell, "-c", script], input=f"{secret}\n", env=environ, capture_output=True, text=True, check=True
    )
    assert int(outcome.stdout) == len(secret.strip()) + 1
    assert f"{NAME}={secret.strip()}\n" in outcome.stderr


def test_bash_is_here() -> None:
    assert shutil.which("bash")
