"""The console in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from tests.end_to_end.stage import Stage

CHROMIUM = shutil.which("chromium") or ""
DESK, PHONE = {"width": 1180, "height": 900}, {"width": 390, "height": 844}


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start the browser; it ends with the block."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield started
        finally:
            await started.close()


async def open_console(
    in_browser: Browser, stage: Stage, *, is_phone: bool = False, scheme: Literal["light", "dark"] = "light"
) -> tuple[Page, list[str]]:
    """Open the console with the sandbox's panel; return the page, and what it complains about from now on."""
    context = await in_browser.new_context(
        viewport=PHONE if is_phone else DESK,  # type: ignore[arg-type]  # a ViewportSize
        color_scheme=scheme,
        reduced_motion="reduce",
        device_scale_factor=2 if is_phone else 1,
    )
    page = await context.new_page()
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(f"{stage.host.url}/api/console#partner={stage.partner.url}")
    return page, complaints
