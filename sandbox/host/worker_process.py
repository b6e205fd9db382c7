"""The worker process as the host sees it: asked to run functions, and started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.host.errors import StartError, WorkerEndedError
from sandbox.host.messages import Answer, FunctionMetadata, Invoke
from sandbox.host.schedule import time_span_text
from sandbox.host.worker_run import WorkerRun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from sandbox.host.functions import Function
    from sandbox.host.messages import TraceContext, TypedData

logger = logging.getLogger(__name__)

# A worker process that ends before it has imported the app is started this often in a row, with growing pauses.
MAX_STARTS = 5
FIRST_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class _Invocation:
    """An invocation that the worker process has not answered yet."""

    answer: asyncio.Future[Answer]
    trace_context: TraceContext


class WorkerProcess:
    """One worker process at a time: another follows when it ends, for as long as the host runs.

    `client` is the value of every durable client binding. A function that runs longer than `timeout` takes its worker
    process along, and everything in it. `failed` gets the reason when no other process can follow.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        client: TypedData,
        *,
        timeout: timedelta | None = None,
        verbose: bool = False,
    ) -> None:
        self._directory = directory
        self._environment = environment
        self._client = client
        self._timeout = timeout
        self._verbose = verbose
        self._pending: dict[str, _Invocation] = {}
        self._ready = asyncio.Event()
        self._stopping = False
        self._run: WorkerRun | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._functions: list[FunctionMetadata] = []
        self.failed: asyncio.Future[StartError] = asyncio.get_running_loop().create_future()
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The id of the worker process, None where none runs."""
        return None if self._run is None else self._run.pid

    async def start(self) -> list[FunctionMetadata]:
        """Start the worker process; gives the functions of the app.

        Raises:
            StartError: the app cannot run.
        """
        self._supervision = asyncio.create_task(self._supervise())
        ready = asyncio.create_task(self._ready.wait())
        ends: list[asyncio.Future[Any]] = [ready, self.failed]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self.failed.done():
            raise self.failed.result()
        return self._functions

    async def invoke(self, function: Function, value: TypedData, trace_context: TraceContext) -> Answer:
        """Run a function on what triggered it; waits where a worker process is just being started.

        Raises:
            WorkerEndedError: the worker process ended before it answered, or the function ran longer than `timeout`.
        """
        await self._ready.wait()
        run = self._run
        if self._stopping or run is None:
            raise WorkerEndedError("The host is stopping.", is_final=True)
        invocation_id = str(uuid.uuid4())
        invocation = _Invocation(asyncio.get_running_loop().create_future(), trace_context)
        self._pending[invocation_id] = invocation
        run.send(
            Invoke(
                invocation_id=invocation_id,
                function_id=function.function_id,
                inputs={function.trigger_parameter: value, **dict.fromkeys(function.clients, self._client)},
                trace_context=trace_context,
            )
        )
        timeout = self._timeout
        timer = (
            asyncio.get_running_loop().call_later(timeout.total_seconds(), self._time_out, function)
            if timeout
            else None
        )
        try:
            return await invocation.answer
        finally:
            del self._pending[invocation_id]
            if timer is not None:
                timer.cancel()

    def _time_out(self, function: Function) -> None:
        """End the worker process of a function that has run for too long."""
        if self._run is not None and self._timeout is not None and self._ready.is_set():
            self._ready.clear()
            limit = time_span_text(self._timeout)
            self._lose_invocations(f"Timeout value of {limit} was exceeded by function: Functions.{function.name}")
            self._run.kill()

    def trace_of(self, invocation_id: str) -> TraceContext | None:
        """Return the trace context of a running invocation, None where there is no such."""
        invocation = self._pending.get(invocation_id)
        return None if invocation is None else invocation.trace_context

    async def stop(self) -> None:
        """End the worker process; pending invocations fail with WorkerEndedError."""
        self._stopping = True
        # Whoever waits for a worker process shall see that none follows.
        self._ready.set()
        if self._supervision is not None:
            self._supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervision

    def _on_ready(self, functions: list[FunctionMetadata]) -> None:
        self._functions = functions
        self._ready.set()

    def _on_answer(self, answer: Answer) -> None:
        invocation = self._pending.get(answer.invocation_id)
        if invocation is not None and not invocation.answer.done():
            invocation.answer.set_result(answer)

    async def _supervise(self) -> None:
        """Run one worker process after the other."""
        failures = 0
        while True:
            run = self._run = WorkerRun(self._directory, self._environment, self._on_ready, self._on_answer)
            try:
                problem = await run.run(verbose=self._verbose)
            finally:
                if not self._stopping:
                    self._ready.clear()
                self._lose_invocations(run.ending)
            failures = 0 if run.was_ready else failures + 1
            if failures == MAX_STARTS:
                problem = StartError(
                    f"the worker process ended {failures} times before it had imported the app: {run.ending}"
                )
            if problem is not None:
                self.failed.set_result(problem)
                return
            logger.warning("Worker process %s: %s; starting another", run.pid, run.ending)
            if failures:
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
            self.restarts += 1

    def _lose_invocations(self, how: str) -> None:
        for invocation in self._pending.values():
            if not invocation.answer.done():
                invocation.answer.set_exception(WorkerEndedError(how, is_final=self._stopping))
