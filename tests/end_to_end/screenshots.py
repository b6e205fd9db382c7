"""`python -m tests.end_to_end.screenshots` takes the pictures of the console in docs/images."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx

from sandbox.processes import PROJECT
from tests.end_to_end.console_page import browser, open_console
from tests.end_to_end.stage import Stage, id_of, record

if TYPE_CHECKING:
    from playwright.async_api import Browser

IMAGES = PROJECT / "docs" / "images"


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with ExitStack() as stack:
        stage = Stage(stack, environ={"DELIVERY_RETRY_FIRST": "1", "DELIVERY_RETRY_MAX": "3", "DELIVERY_CHUNK": "10"})
        async with httpx.AsyncClient(timeout=60, trust_env=False) as stage.http, browser() as chromium:
            await _take(stage, chromium)


async def _take(stage: Stage, chromium: Browser) -> None:
    desk, _ = await open_console(chromium, stage)
    dark, _ = await open_console(chromium, stage, scheme="dark")
    phone, _ = await open_console(chromium, stage, is_phone=True)
    bad = {"fault": "status", "route": "post", "status": 422, "body": {"title": "Quota used up"}}
    await stage.set_faults(*({**bad, "record": id_of(number)} for number in (7, 5003)))
    await stage.deliver_all([record(number) for number in range(1, 9)])
    await stage.deliver([record(number) for number in range(5001, 5041)])
    await stage.control(
        "POST", "faults", json={"fault": "status", "route": "post", "record": id_of(9), "status": 503, "times": 4}
    )
    slow = await stage.start(record(9))
    await stage.control("POST", "limit", json={"rate": 60})
    links = await stage.start([record(number) for number in range(1000, 2000)])
    await asyncio.sleep(13)
    await stage.control("POST", "revoke")
    await asyncio.sleep(4)
    await desk.screenshot(path=IMAGES / "console.png")
    await dark.screenshot(path=IMAGES / "console-dark.png")
    await phone.screenshot(path=IMAGES / "console-phone.png")
    await stage.control("POST", "recover")
    await stage.finished(slow)
    await desk.click(f"[data-open='{slow['id']}']")
    await desk.wait_for_selector("#timeline svg")
    await asyncio.sleep(2)
    await desk.locator("#one").screenshot(path=IMAGES / "timeline.png")
    with contextlib.suppress(TimeoutError):
        await stage.finished(links, patience=30)


if __name__ == "__main__":
    asyncio.run(main())
