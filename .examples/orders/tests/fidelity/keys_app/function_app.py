"""The functions that the questions about keys need: one of each level, a timer, an orchestrator."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
import azure.functions as func

if TYPE_CHECKING:
    from collections.abc import Generator

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route(route="health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.method)


@app.route(route="records", methods=["GET", "POST"])
def records(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.method)


@app.timer_trigger(arg_name="timer", schedule="0 0 3 * * *")
def purge(timer: func.TimerRequest) -> None:
    assert not timer.past_due


@app.orchestration_trigger(context_name="context")
def orchestrate(context: df.DurableOrchestrationContext) -> Generator[Any, Any, str]:
    yield context.create_timer(context.current_utc_datetime)
    return "done"
