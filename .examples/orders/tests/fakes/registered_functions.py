"""The functions that function_app.py registers, by their names; the SDK gives them only once a process."""

from __future__ import annotations

import json
from typing import Any

import function_app

FUNCTIONS = {function.get_function_name(): function for function in function_app.app.get_functions()}
BINDINGS: dict[str, list[dict[str, Any]]] = {
    name: [json.loads(raw) for raw in function.get_raw_bindings()] for name, function in FUNCTIONS.items()
}
