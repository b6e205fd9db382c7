"""The benchmark's partner, started and asked."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.record import RESOURCE

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
        return self.url + RESOURCE.post.target("benchmark-1")

    @property
    def token_url(self) -> str:
        """The token endpoint."""
        return f"{self.url}/auth/token"

    def set(self, **settings: Any) -> dict[str, int]:  # noqa: ANN401, those of a room
        """Change the room's settings (see `room.Room`) and set its counts to 0; return what they were."""
        return self._post("control", {"settings": settings, "isNew": True})

    def change(self, **settings: Any) -> dict[str, int]:  # noqa: ANN401, those of a room
        """Change the room's settings; return its counts, which go on."""
        return self._post("control", {"settings": settings})

    def counts(self) -> dict[str, int]:
        """Return the room's counts."""
        return self._post("control", {})

    def token(self) -> str:
        """Return a token that is valid for an hour: for those who do not get their own."""
        token: str = self._post("auth/token", {})["access_token"]  # type: ignore[assignment]  # of all answers, this one
        return token

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, int]:
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, method="POST")  # noqa: S310, ours, on loopback
        with urllib.request.urlopen(request) as response:  # noqa: S310, the same
            answer: dict[str, int] = json.load(response)
            return answer


@contextmanager
def running_server() -> Iterator[str]:
    """Run the server; yield its origin."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101, it is a pipe
        assert process.stdin is not None  # noqa: S101, the same
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
