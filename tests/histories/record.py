"""Records the histories of one version of the orchestrators: `.venv/bin/python -m tests.histories.record v1.0.0`.

Each scenario is played through Microsoft's SDK. What a version has recorded is never written again: a new version has
a folder of its own, and tests/test_histories.py replays all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Any

from azure.durable_functions import Orchestrator

from shared.durable.inputs import DeliveryOptions, batch_input, single_input, to_json
from shared.durable.orchestrators import ATTEMPTS_OF_A_RUN, deliver_batch, deliver_one
from shared.rules.outcome import Outcome
from shared.rules.retry import RetryPolicy
from tests.fakes.replay import order_result, play
from tests.histories.recording import FOLDER, Recording
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    # A record's outcomes, one for each turn; the last one stays. None: the activity leaves it.
    Script = Sequence[Outcome | Exception | None]

HANDLES: dict[str, Callable[[Any], Any]] = {
    "DeliverParcel": lambda context: deliver_one(context, PARCEL),
    "DeliverParcelBatch": lambda context: deliver_batch(context, PARCEL),
}
OPTIONS = DeliveryOptions(RetryPolicy(3_600, 1, 60), 5.0, chunk=2, parallel=2, order=4)
QUICK = DeliveryOptions(RetryPolicy(3, 1, 60), 5.0, chunk=2, parallel=2, order=4)

CREATED, EXISTS = Outcome("created", "P-0", 201), Outcome("exists", "P-0", 200)
LATER = Outcome("deferred", "P-0", 429, "The partner answered 429", {"title": "Zoë's “limit”"}, 30.0)
UNCERTAIN = Outcome("deferred", "P-0", 500, "The partner answered 500", is_uncertain=True)
ABSENT = Outcome("deferred", "P-0", reason="not found", retry_after=5, is_uncertain=True, is_absent=True)
HELD = Outcome("deferred", "P-0", reason="others come first", retry_after=7.5, was_held=True)
REFUSED = Outcome("rejected", "P-0", 422, "The partner answered 422: no", {"title": "no", "city": "Xanadú"})
LOST = RuntimeError("Activity function 'PostParcel' failed: python exited with code 137 (0x89)")

SINGLES: dict[str, tuple[DeliveryOptions, dict[str, Any], Script]] = {
    "created": (OPTIONS, {}, [CREATED]),
    "exists": (OPTIONS, {"uncertain": True, "pause": 62.0, "key": "parcel-0"}, [EXISTS]),
    "rejected": (OPTIONS, {}, [LATER, REFUSED]),
    "expired": (QUICK, {}, [UNCERTAIN]),
    "lost-answer": (OPTIONS, {}, [HELD, UNCERTAIN, ABSENT, ABSENT, CREATED]),
    "process-lost": (OPTIONS, {}, [LOST, EXISTS]),
    "long": (OPTIONS, {}, [UNCERTAIN] * (ATTEMPTS_OF_A_RUN + 1) + [CREATED]),
}
BATCHES: dict[str, tuple[DeliveryOptions, dict[str, Any], dict[int, Script]]] = {
    "batch": (OPTIONS, {}, {}),
    "batch-rounds": (
        OPTIONS,
        {},
        {1: [REFUSED], 2: [LATER, CREATED], 3: [UNCERTAIN, ABSENT, EXISTS], 9: [None, CREATED]},
    ),
    "batch-expired": (QUICK, {"pause": 62.0, "uncertain": [1, 2]}, {0: [UNCERTAIN], 5: [LATER]}),
    "batch-process-lost": (OPTIONS, {}, {4: [LOST, LOST, EXISTS]}),
    "batch-long": (OPTIONS, {}, {0: [UNCERTAIN] * (ATTEMPTS_OF_A_RUN + 1) + [CREATED], 1: [REFUSED]}),
}


def record(folder: Path, version: str) -> list[Recording]:
    """Record all scenarios into a new folder.

    Raises:
        FileExistsError: the version has been recorded.
    """
    folder.mkdir()
    made = []
    for name, (options, more, script) in SINGLES.items():
        input_ = single_input('{"parcelId": "P-0", "weight": 1.50, "note": "Zoë"}'.encode(), options)
        made += _recordings(version, name, "DeliverParcel", input_ | more, {0: script})
    texts = [b'{"parcelId": "P-%d", "weight": 1.50}' % number for number in range(10)]
    for name, (options, more, scripts) in BATCHES.items():
        input_ = batch_input(texts, options)
        made += _recordings(version, name, "DeliverParcelBatch", input_ | more, scripts)
    for recording in made:
        recording.save(folder / f"{recording.scenario}.json")
    return made


def _recordings(
    version: str, scenario: str, orchestrator: str, input_: dict[str, Any], scripts: dict[int, Script]
) -> list[Recording]:
    """Play a scenario; each run of an orchestration that continues as new is a recording of its own."""
    turns: dict[int, int] = {}

    def outcome_of(index: int) -> Outcome | None:
        script = scripts.get(index, [CREATED])
        outcome = script[min(turns.get(index, 0), len(script) - 1)]
        turns[index] = turns.get(index, 0) + 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def activity(_: str, order: dict[str, Any]) -> dict[str, Any]:
        if "record" in order:
            outcome = outcome_of(0)
            assert outcome is not None
            return to_json(outcome)
        made = {index: outcome_of(index) for index in order["records"]}
        return order_result(made, 2.0)

    handle = HANDLES[orchestrator]
    last = asyncio.run(play(handle, input_, activity, instance_id="parcel-0"))
    runs = [*last.earlier, last]
    return [
        Recording.make(
            Orchestrator.create(handle),
            version=version,
            scenario=scenario if len(runs) == 1 else f"{scenario}-{number}",
            orchestrator=orchestrator,
            instance_id="parcel-0",
            status="ContinuedAsNew" if run is not last else "Completed",
            history=run.history,
        )
        for number, run in enumerate(runs, 1)
    ]


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description="Record the histories of one version of the orchestrators.")
    parser.add_argument("version", help="its name, as in v1.0.0; it must not have been recorded")
    version: str = parser.parse_args(arguments).version
    try:
        made = record(FOLDER / version, version)
    except FileExistsError:
        sys.stderr.write(f"{version} has been recorded: what a version has recorded is never written again\n")
        return 1
    sys.stdout.writelines(f"{version}/{each.scenario}: {len(each.history)} events\n" for each in made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
