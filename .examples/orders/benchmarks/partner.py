"""The benchmark's partner, started and asked."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT = ("client", "secret")


@dataclass(frozen=True)
class Partner:
    """One room of the benchmark's partner."""

    origin: str
    room: str

    @property
    def url(self) -> str:
        """The API's base URL."""
        return f"{self.origin}/{self.room}"

    @property
    def posts_url(self) -> str:
        """Where records are posted."""
        return f"{self.url}/business/"

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.url}/auth/token"

    def set(self, **settings: float) -> dict[str, int]:
        """Change the room's settings (see `server.Room`) and set its counts to 0; give what they were."""
        return self._post("control", settings)

    def counts(self) -> dict[str, int]:
        """Give the room's counts."""
        return self._post("control", None)

    def token(self) -> str:
        """Get a token that lives for an hour: for those who do not get their own."""
        token: str = self._post("auth/token", {})["access_token"]  # type: ignore[assignment]  # of all answers, this one
        return token

    def _post(self, path: str, body: dict[str, float] | None) -> dict[str, int]:
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, method="POST")  # noqa: S310, ours, on loopback
        with urllib.request.urlopen(request) as response:  # noqa: S310, the same
            answer: dict[str, int] = json.load(response)
            return answer


@contextmanager
def running_server() -> Iterator[str]:
    """Run the server; give its origin."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101, it is a pipe
        assert process.stdin is not None  # noqa: S101, the same
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()
