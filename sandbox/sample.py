"""The record in sample.json, which the app takes: the demo, the trial of a package and the tests make theirs of it.

It is changed together with the model, `Business` in shared/api/business.py; tests/test_sample.py holds it against that.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = "sandbox/sample.json"
"""Where the record stands, below the project."""
MODEL = "the model, Business in shared/api/business.py"


def business(external_id: str, **members: object) -> dict[str, Any]:
    """Give the record with this external id, and with these members instead of its own or beside them.

    Raises:
        ValueError: the file is not JSON.
    """
    try:
        record = json.loads(_text())
    except ValueError as exc:
        raise ValueError(f"{PLACE} is not JSON: {exc}") from None
    return {**record, "externalId": external_id, **members}


def why_refused(problem: Mapping[str, Any]) -> str:
    """Say in one line what the app's problem details mean for a record that was made here, and what to change."""
    faults = [f"{fault['pointer'].removeprefix('#')} {fault['detail']}".strip() for fault in problem.get("errors", [])]
    shown = faults[:3] or [problem.get("detail", "it does not say why")]
    more = f" and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""
    return f"the app refuses the record of {PLACE}: {', '.join(shown)}{more}. Change it together with {MODEL}"


@functools.cache
def _text() -> str:
    return Path(__file__).with_name("sample.json").read_text(encoding="utf-8")
