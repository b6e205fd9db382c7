"""The payloads of instances in answers: what JSON cannot say is written as .NET writes it."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from starlette.responses import JSONResponse


def _number(text: str) -> float | str:
    value = float(text)
    return value if isfinite(value) else "-Infinity" if value < 0 else "Infinity"


def payload_value(text: str) -> Any:  # noqa: ANN401 - any JSON value
    """Give the value of a payload; `NaN` and what is not finite, which Python's JSON can have in it, are texts."""
    return json.loads(text, parse_constant=str, parse_float=_number)


class PayloadResponse(JSONResponse):
    """An answer with payloads in it; a lone surrogate, which UTF-8 cannot have, is a replacement character."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - as it is declared
        """Give the bytes."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
