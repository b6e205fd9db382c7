"""Answers of JSON, as .NET writes them: UTF-8, and what JSON cannot say as texts."""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.requests import Request


def _number(text: str) -> float | str:
    value = float(text)
    return value if isfinite(value) else "-Infinity" if value < 0 else "Infinity"


def payload_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of a payload; `NaN` and infinite numbers, which Python's JSON may contain, become texts."""
    return json.loads(text, parse_constant=str, parse_float=_number)


class JsonResponse(JSONResponse):
    """An answer of the host itself; a lone surrogate, which UTF-8 cannot have, becomes a replacement character."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - as it is declared
        """Return the bytes."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def origin_of(request: Request) -> str:
    """Return scheme, host and port under which the caller reached the host."""
    return f"{request.url.scheme}://{request.url.netloc}"
