"""The console, as a person uses it: in a real browser, with the sandbox's partner beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.end_to_end.console_page import CHROMIUM, browser, open_console
from tests.end_to_end.stage import RESOURCE, id_of, record, records

if TYPE_CHECKING:
    from tests.end_to_end.conftest import StartStage

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CHROMIUM or not Path(CHROMIUM).exists(), reason="there is no chromium"),
]


async def test_a_batch_moves_and_a_fault_of_the_partner_shows_and_passes(start: StartStage) -> None:
    stage = start(environ={"DELIVERY_RETRY_MAX": "1", "DELIVERY_CHUNK": "10"})
    async with browser() as chromium:
        page, complaints = await open_console(chromium, stage)
        await page.click("[data-fault=limit]")
        await page.wait_for_selector("[data-fault=limit][aria-pressed=true]")
        links = await stage.start(records(200))
        bar = f"tr[data-id='{links['id']}'] [role=progressbar]"
        seen: list[int] = []
        for _ in range(2):
            await page.wait_for_function(
                "([selector, before]) => Number(document.querySelector(selector)?.ariaValueNow ?? -1) > before",
                arg=[bar, seen[-1] if seen else 0],
                timeout=60_000,
            )
            seen.append(int(await page.get_attribute(bar, "aria-valuenow") or 0))
        await page.click("[data-fault=down]")
        await page.wait_for_selector("[data-fault=down][aria-pressed=true]")
        await page.click("[data-fault=revoke]")
        await page.click("[data-fault=recover]")
        await page.wait_for_selector(f"tr[data-id='{links['id']}'] .delivered", timeout=60_000)
        figures = await page.text_content("#sandbox-figures") or ""

    assert 0 < seen[0] < seen[1] <= 200
    assert figures.startswith("200 records stored, 0 of them twice")
    assert complaints == []


async def test_filters_the_timeline_and_the_keyboard_lead_to_what_went_wrong(start: StartStage) -> None:
    stage = start(environ={"DELIVERY_RETRY_FIRST": "0.2"})
    closed = {"fault": "status", "route": "post", "status": 422, "body": {"title": "Closed"}}
    await stage.set_faults(
        *({**closed, "record": id_of(number)} for number in (2, 13)),
        {"fault": "status", "route": "post", "record": id_of(3), "status": 503, "times": 2},
    )
    await stage.deliver_all([record(number) for number in range(1, 4)])
    batch = await stage.deliver([record(number) for number in range(11, 16)])
    async with browser() as chromium:
        page, complaints = await open_console(chromium, stage)
        await expect(page.locator("[data-open]")).to_have_count(4, timeout=30_000)
        await page.click("text=Needs attention")
        await expect(page.locator("[data-open]")).to_have_count(2, timeout=30_000)
        await page.click(f"[data-open='{batch['id']}']")
        reasons = await page.text_content("[aria-label='Undelivered records']")
        await stage.set_faults()
        await page.click("#actions >> text=Redeliver")
        await page.wait_for_selector("#one-title .delivered")
        await page.keyboard.press("Escape")
        await page.wait_for_selector("#one", state="hidden")
        await page.click("[data-states='']")
        await page.select_option("#resource", RESOURCE.name)
        await expect(page.locator("[data-open]")).to_have_count(5, timeout=30_000)
        focused = []
        for key in ("j", "j", "k"):
            await page.keyboard.press(key)
            focused.append(
                await page.evaluate("[...document.querySelectorAll('[data-open]')].indexOf(document.activeElement)")
            )
        await page.click(f"text={id_of(3)}")
        await page.wait_for_selector("#timeline rect")
        attempts = await page.get_attribute("#timeline svg", "aria-label")
        told = await page.text_content("[aria-label=Attempts]")

    assert reasons is not None
    assert id_of(13) in reasons
    assert "Closed" in reasons
    assert focused == [0, 1, 0]
    assert (attempts or "0")[0] >= "3"
    assert "503" in (told or "")
    assert complaints == []


@pytest.mark.parametrize("is_phone", [False, True], ids=["desk", "phone"])
async def test_fits_its_screen_and_follows_the_light(start: StartStage, *, is_phone: bool) -> None:
    stage = start(options=["--keys"])
    await stage.deliver(records(3))
    async with browser() as chromium:
        light, complaints = await open_console(chromium, stage, is_phone=is_phone)
        dark, _ = await open_console(chromium, stage, is_phone=is_phone, scheme="dark")
        # Without its key the page shows nothing but the question for it.
        await light.fill("#key", stage.key)
        await light.click("text=Use it")
        await light.wait_for_selector("[data-open]")
        overflow = await light.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        colours = [await page.evaluate("getComputedStyle(document.body).backgroundColor") for page in (light, dark)]
        await light.click("#theme")
        colours.append(await light.evaluate("getComputedStyle(document.body).backgroundColor"))
        rows_without_key = await dark.locator("[data-open]").count()

    assert overflow <= 0
    assert colours[0] != colours[1] == colours[2]
    assert rows_without_key == 0
    assert [text for text in complaints if "401" not in text] == []
