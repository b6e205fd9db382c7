"""Application Insights' ingestion endpoint on a loopback socket: it takes what is tracked, and keeps it."""

from __future__ import annotations

import gzip
import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

KEY = "00000000-0000-0000-0000-000000000001"
# What the exporter calls each kind of telemetry, after "Microsoft.ApplicationInsights.".
SPANS, LINE, METRIC = {"RemoteDependency", "Request"}, "Message", "Metric"


@dataclass(frozen=True)
class Item:
    """One piece of telemetry, with what relates it to the others: ids are those of the trace and of the span above."""

    kind: str
    operation_id: str
    parent_id: str
    data: dict[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """The span's name, or the line's text."""
        return str(self.data.get("name") or self.data.get("message"))

    @property
    def properties(self) -> dict[str, str]:
        """Custom dimensions."""
        properties: dict[str, str] = self.data.get("properties") or {}
        return properties


class IngestionEndpoint:
    """`received` has the bytes of every request, `items` what was in them."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.items: list[Item] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                # Live metrics ask at another path whether somebody watches: nobody does.
                count = endpoint.take(body) if self.path.endswith("/v2.1/track") else 0
                answer = json.dumps({"itemsReceived": count, "itemsAccepted": count, "errors": []}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("x-ms-qps-subscribed", "false")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def connection_string(self) -> str:
        """What APPLICATIONINSIGHTS_CONNECTION_STRING is to be."""
        url = f"http://127.0.0.1:{self._server.server_port}"
        return f"InstrumentationKey={KEY};IngestionEndpoint={url}/;LiveEndpoint={url}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, body: bytes) -> int:
        """Keep what is in a request; give how many items that was."""
        self.received.append(body)
        envelopes = json.loads(body)
        for envelope in envelopes:
            tags = envelope.get("tags", {})
            self.items.append(
                Item(
                    envelope["name"].rpartition(".")[2],
                    tags.get("ai.operation.id", ""),
                    tags.get("ai.operation.parentId", ""),
                    envelope["data"]["baseData"],
                )
            )
        return len(envelopes)

    def spans(self, operation_id: str) -> dict[str, Item]:
        """Give the spans of a trace by their ids."""
        found = [item for item in self.items if item.kind in SPANS and item.operation_id == operation_id]
        return {item.data["id"]: item for item in found}

    def lines(self, text: str) -> list[Item]:
        """Give the log lines of a text."""
        return [item for item in self.items if item.kind == LINE and item.name == text]

    def metrics(self) -> dict[str, float]:
        """Give what each counter has counted: every export has what came since the last one."""
        sums: dict[str, float] = defaultdict(float)
        for item in self.items:
            for point in item.data["metrics"] if item.kind == METRIC else ():
                sums[point["name"]] += point["value"]
        return sums
