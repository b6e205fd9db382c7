"""The HTTP interface as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from shared.delivery.openapi_paths import paths
from shared.delivery.openapi_schemas import schemas

# As pyproject.toml has it, which is not deployed.
VERSION = "0.2.0"


@functools.cache
def document() -> bytes:
    """Give the document as JSON text in UTF-8; it is built once, when it is first asked for."""
    content: dict[str, Any] = {
        "openapi": "3.1.1",
        "info": {
            "title": "Business Relay",
            "version": VERSION,
            "summary": "Delivers business records to a partner's HTTP API, once each.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to where this document is: host.json's routePrefix.
        "servers": [{"url": "/api"}],
        "security": [{"functionKey": []}, {"functionKeyInQuery": []}],
        "paths": paths(),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "functionKey": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "functionKeyInQuery": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
    }
    return msgspec.json.encode(content)
