"""Answers of JSON, as the host writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.requests import Request


class JsonResponse(JSONResponse):
    """An answer of the host itself; a lone surrogate, which UTF-8 cannot have, becomes a replacement character."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - as it is declared
        """Return the bytes."""
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def origin_of(request: Request) -> str:
    """Return scheme, host and port under which the caller reached the host."""
    return f"{request.url.scheme}://{request.url.netloc}"
