from __future__ import annotations

import asyncio
import os
import sys
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.chaos import KINDS, NATURE, Rage, check, deliver_all
from tests.end_to_end.stage import PREFIX, RESOURCE, id_of, record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.end_to_end.conftest import StartStage

# `make test-chaos` rages for 60 s over 1,000 records; `make test-long` is quicker, with the same schedule.
SECONDS = float(os.environ.get("CHAOS_SECONDS", "15"))
RECORDS = int(os.environ.get("CHAOS_RECORDS", "200"))
KILLS = list(islice(cycle(KINDS), int(os.environ.get("CHAOS_KILLS", "3"))))
SEED = int(os.environ.get("CHAOS_SEED", "20261123"))
STORAGE = "AzureFunctionsJobHost__extensions__durableTask__storageProvider__"
SETTINGS = {
    "DELIVERY_RETRY_FIRST": "0.2",
    "DELIVERY_RETRY_MAX": "1",
    "DELIVERY_SETTLE": "2",
    "DELIVERY_CHUNK": "20",
    f"{PREFIX}TIMEOUT": "5",
    # What a killed host has posted is stored up to 6 s later. Its activities are handed out again after that.
    f"{STORAGE}workItemQueueVisibilityTimeout": "00:00:08",
    f"{STORAGE}controlQueueVisibilityTimeout": "00:00:02",
}
# Not 409: after an attempt without an answer it may mean that this attempt is in progress, until the deadline.
REASONS = {400: "Malformed as ever", 403: "Not for you", 422: "Quota used up"}
FORMS = {"formNull": None, "formText": "  to be trimmed ", "formTime": "2026-11-29T10:15:00+01:00", "formSum": "12.50"}

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(SECONDS * 4 + 400),
    pytest.mark.skipif(RESOURCE.look_up is None, reason="the schedule is that of a partner with a look-up"),
]


@pytest.mark.parametrize("idempotency", ["honour", "ignore"])
async def test_every_record_is_stored_once_and_every_report_is_true(
    start: StartStage, tmp_path: Path, idempotency: str
) -> None:
    stage = start(["--idempotency", idempotency, "--seed", str(SEED)], SETTINGS, store=tmp_path / "store")
    bodies = [record(number, **FORMS) for number in range(1, RECORDS + 1)]
    # Every twentieth record is one that the partner will never take.
    bad = {id_of(number): (400, 403, 422)[number % 3] for number in range(7, RECORDS + 1, 20)}
    refusals = [
        {"fault": "status", "route": "post", "record": id_, "status": status, "body": {"title": REASONS[status]}}
        for id_, status in bad.items()
    ]
    always = [*refusals, *NATURE]
    await stage.set_faults(*always)

    _, deliveries = await asyncio.gather(
        Rage(SECONDS, KILLS, SEED, always)(stage),
        deliver_all(stage, bodies, batch=50, seconds=SECONDS * 0.8, seed=SEED),
    )

    report = check(deliveries, map(id_of, range(1, RECORDS + 1)), await stage.stored())
    counters = await stage.counters()
    sys.stdout.write(
        f"chaos, keys {idempotency.removesuffix('e')}ed: "
        f"{report.delivered} delivered, {len(report.rejected)} rejected, "
        f"{len(report.doubled)} doubled, {len(report.lost)} lost, {len(report.misreported)} misreported; "
        f"killed: {', '.join(f'{KILLS.count(kind)} {kind}' for kind in KINDS)}; "
        f"{stage.host_output.count('delivery rewound')} rewound, "
        f"{stage.host_output.count('delivery started again')} started again; {counters['posts']} posts, "
        f"{counters['lookups']} look-ups, {counters['refused']} refused, {counters['token_requests']} token requests\n"
    )
    wrong = [*report.doubled, *report.lost, *report.misreported]
    lines = [*stage.partner.lines, *stage.host_output.splitlines()]
    sys.stdout.writelines(f"{line}\n" for line in lines if any(each[:8] in line for each in wrong))
    assert (report.doubled, report.lost, report.misreported) == ([], [], [])
    assert report.rejected.keys() == bad.keys()
    assert all(REASONS[bad[id_]] in reason for id_, reason in report.rejected.items())
    assert report.delivered == RECORDS - len(bad)
    assert (await stage.restarts(), len(stage.hosts) - 1) == (
        KILLS.count("worker"),
        len(KILLS) - KILLS.count("worker"),
    )
    assert counters["without_token"] == 0
    await stage.assert_no_secret()
