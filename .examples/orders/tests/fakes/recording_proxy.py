"""A reverse proxy on a loopback socket that keeps the headers of what it hands on."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import httpx

# What a proxy does not hand on, RFC 9110 section 7.6.1, and what the client adds anew.
OWN = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "date", "server"}


@dataclass(frozen=True)
class Passed:
    """A request that went through; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class RecordingProxy:
    """Hands every request on to `target` (a URL without a path)."""

    def __init__(self, target: str) -> None:
        self.passed: list[Passed] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                proxy.passed.append(Passed(self.command, self.path, headers))
                body = self.rfile.read(int(headers.get("content-length", "0")))
                given = {name: value for name, value in headers.items() if name not in OWN}
                answer = httpx.request(self.command, target + self.path, headers=given, content=body, timeout=30)
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in OWN:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = _pass_on  # noqa: N815 - the standard library's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
