"""A timer function that writes down what it gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp()
DIARY = Path(os.environ.get("DIARY_FOLDER", "."))


@app.timer_trigger(arg_name="tick", schedule="%TICK_SCHEDULE%", run_on_startup=True)
@app.durable_client_input(client_name="client")
async def tick(tick: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:
    given = cast("Any", tick)  # the interface names fewer fields than the runtime gives
    document = {"past_due": given.past_due, "status": given.schedule_status, "schedule": given.schedule}
    with (DIARY / "ticks").open("a") as file:
        file.write(json.dumps(document) + "\n")
    if (DIARY / "fail").exists():
        raise ValueError("the timer is told to fail")
    await client.get_status_all()
