from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sandbox.sample import business
from tests.end_to_end.stage import until

if TYPE_CHECKING:
    import httpx

    from tests.end_to_end.stage import Stage

GOOD = json.dumps(business("headers")).encode()


@pytest.mark.parametrize(
    ("route", "content", "status"),
    [
        ("GET health", b"", 200),
        ("GET openapi.json", b"", 200),
        ("GET businesses/unknown", b"", 404),
        ("POST businesses", GOOD, 202),
        ("POST businesses", b"{", 400),
        ("POST businesses/batch", b"[" + GOOD + b"]", 202),
    ],
)
async def test_no_answer_of_the_app_is_stored_or_taken_for_another_type(
    shared_stage: Stage, http: httpx.AsyncClient, route: str, content: bytes, status: int
) -> None:
    method, path = route.split()
    headers = {"Content-Type": "application/json"}

    async def ask() -> httpx.Response | None:
        answer = await http.request(method, f"{shared_stage.host.url}/api/{path}", content=content, headers=headers)
        # The tests before have reset the partner, which then knows no token: the app may be holding back for that.
        return answer if answer.status_code != 503 else None

    answer = await until(ask)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
