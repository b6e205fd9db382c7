from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from shared.container import Container
from shared.errors import ApiUnavailableError, ResourceError, SettingsError, TokenError
from shared.resource import Partner
from tests.models import CARRIER, PARCEL

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOKS = Partner("BOOKS_API")
RECEIPT = replace(PARCEL, name="Receipt", route="receipts", partner=BOOKS)
NOBODY = "http://127.0.0.1:9"


def settings(*partners: Partner, **more: str) -> dict[str, str]:
    """Return settings of partners that nobody listens for."""
    values = {"URL": NOBODY, "TOKEN_URL": f"{NOBODY}/token", "CLIENT_ID": "id", "CLIENT_SECRET": "secret-of-a-test"}
    return {f"{each.name}_{name}": value for each in partners for name, value in values.items()} | more


def refused(environ: Mapping[str, str], *resources: Any) -> str:  # noqa: ANN401, resources
    with pytest.raises(SettingsError) as caught:
        Container(environ, resources).check_settings()
    return "\n".join(caught.value.problems)


def test_resources_that_cannot_live_in_one_app_are_refused_at_the_start() -> None:
    with pytest.raises(ResourceError, match="taken twice"):
        Container({}, [PARCEL, replace(PARCEL, name="Other")])


def test_every_problem_of_the_app_and_of_all_partners_is_told_at_once() -> None:
    told = refused(settings(CARRIER, DELIVERY_CHUNK="many", CARRIER_API_TIMEOUT="0"), PARCEL, RECEIPT)

    for name in ("DELIVERY_CHUNK", "CARRIER_API_TIMEOUT", "BOOKS_API_URL"):
        assert name in told


async def test_a_probe_tells_the_problems_of_the_app_and_of_its_partner() -> None:
    container = Container({"DELIVERY_CHUNK": "many", "BOOKS_API_URI": "x"}, [PARCEL, RECEIPT])

    for partner, other in ((CARRIER, BOOKS), (BOOKS, CARRIER)):
        with pytest.raises(SettingsError) as caught:
            await container.probe(partner)
        told = "\n".join(caught.value.problems)
        assert "DELIVERY_CHUNK" in told
        assert f"{partner.name}_URL is missing" in told
        assert other.name not in told


async def test_options_come_from_the_app_and_the_partner_and_wrong_ones_are_read_again() -> None:
    environ = settings(CARRIER, DELIVERY_CHUNK="x")
    container = Container(environ, [PARCEL])
    with pytest.raises(SettingsError):
        container.options(PARCEL)

    environ |= {"DELIVERY_CHUNK": "20", "CARRIER_API_MAX_CONNECTIONS": "40", "CARRIER_API_TIMEOUT": "7"}
    container.check_settings()

    options = container.options(PARCEL)
    assert (options.chunk, options.parallel, container.call_timeout(PARCEL)) == (20, 2, 7)
    assert Container({}, [PARCEL]).call_timeout(PARCEL) == 30


@pytest.mark.parametrize(
    ("told", "schedule"),
    [("", "0 */5 * * * *"), ("0  */2 * * * *", "0 */2 * * * *"), ("often", "0 */5 * * * *")],
)
def test_the_schedule_of_recovery_is_a_setting(told: str, schedule: str) -> None:
    container = Container(settings(CARRIER, DELIVERY_RECOVERY_SCHEDULE=told), [PARCEL])

    assert container.recovery_schedule == schedule
    if told == "often":
        with pytest.raises(SettingsError, match="DELIVERY_RECOVERY_SCHEDULE"):
            container.check_settings()


def test_the_first_invocation_logs_each_problem_once(caplog: pytest.LogCaptureFixture) -> None:
    container = Container(settings(CARRIER, DELIVERY_CHUNK="x", DELIVERY_SETTLE="y"), [PARCEL])

    container.start()
    container.start()

    assert [record.message for record in caplog.records] == ["app setting not usable"] * 2
    assert "secret-of-a-test" not in caplog.text


async def test_each_partner_has_one_client_of_its_own_for_concurrent_callers() -> None:
    container = Container(settings(CARRIER, BOOKS), [PARCEL, RECEIPT])
    try:
        first, second = await asyncio.gather(container.link(CARRIER), container.link(CARRIER))
        other = await container.link(BOOKS)
        access, of_books = container.access(CARRIER), container.access(BOOKS)

        assert first is second
        assert first.api is await access.api()
        assert first is not other
        assert access is container.access(CARRIER)
        assert access.turns is not of_books.turns
        assert access.under_way is not of_books.under_way
        assert container.figures("CARRIER_API")["flow"]["state"] == "open"
        assert container.figures("BOOKS_API")["tokens"] == {"calls": 0, "requested": 0}
        await container.probe(CARRIER, asks=False)
        with pytest.raises((TokenError, ApiUnavailableError)):
            await container.probe(CARRIER)
    finally:
        await container.aclose()


async def test_a_client_that_cannot_be_made_is_tried_again_when_its_settings_are_mended() -> None:
    environ = settings(CARRIER, CARRIER_API_URL="ftp://nowhere")
    container = Container(environ, [PARCEL])
    for _ in range(2):
        with pytest.raises(SettingsError):
            await container.link(CARRIER)
        with pytest.raises(SettingsError):
            await container.probe(CARRIER, asks=False)
    assert container.access(CARRIER) is not container.access(CARRIER)

    environ["CARRIER_API_URL"] = NOBODY
    try:
        assert await container.link(CARRIER) is await container.link(CARRIER)
    finally:
        await container.aclose()


async def test_a_caller_who_goes_away_does_not_take_the_client_from_the_others() -> None:
    container = Container(settings(CARRIER), [PARCEL])
    hasty = asyncio.create_task(container.link(CARRIER))
    await asyncio.sleep(0)
    patient = asyncio.create_task(container.link(CARRIER))
    await asyncio.sleep(0)
    hasty.cancel()
    try:
        assert await patient is await container.link(CARRIER)
        assert hasty.cancelled()
    finally:
        await container.aclose()


def test_counts_what_became_of_the_records_of_a_delivery() -> None:
    container = Container(settings(CARRIER), [PARCEL])

    container.count_end(PARCEL, {"state": "rejected"}, 1.0)
    container.count_end(PARCEL, {"total": 4, "created": 1, "exists": 1, "rejected": 1, "expired": 1}, 2.0)
    container.observe_backlog({"DeliverParcel": (3, 12.5)})
