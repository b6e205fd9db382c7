"""The worker process as the host sees it: asked to run functions, and started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.host.errors import StartError, WorkerEndedError
from sandbox.host.messages import Answer, Channel, FunctionMetadata, Initialize, Initialized, Invoke, NotInitialized
from sandbox.host.schedule import parse_time_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.host.functions import Function
    from sandbox.host.messages import Message, TraceContext, TypedData

logger = logging.getLogger(__name__)

# A worker process that ends before it has imported the app is started this often in a row, with growing pauses.
MAX_STARTS = 5
FIRST_PAUSE_SECONDS = 0.1
STOP_GRACE_SECONDS = 2.0
# A process that has closed its socket is about to end; its exit code is worth a moment.
EXIT_GRACE_SECONDS = 1.0
# The folder that has this package: Python finds the worker's module from it.
PROJECT = Path(__file__).resolve().parents[2]


def _ending(process: asyncio.subprocess.Process) -> str:
    """Return how a process ended, in the platform's words: a signal counts from 128."""
    code = process.returncode or 0
    code = code if code >= 0 else 128 - code
    return f"{sys.executable} exited with code {code} (0x{code:X})"


class WorkerProcess:
    """One worker process at a time: another follows when it ends, for as long as the host runs.

    The process gets `environment` and nothing else of this one. `client` is the value of every durable client binding.
    A function that runs longer than `timeout` (hh:mm:ss) takes its worker process along, and everything in it.
    `failed` gets the reason when no other process can follow.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        client: TypedData,
        *,
        timeout: str = "-1",
        verbose: bool = False,
    ) -> None:
        self._directory = directory
        self._environment = environment
        self._client = client
        self._timeout, self._time_limit = timeout, parse_time_span(timeout)
        self._verbose = verbose
        self._loop = asyncio.get_running_loop()
        self._pending: dict[str, tuple[asyncio.Future[Answer], TraceContext]] = {}
        # Set while a worker process takes invocations, and for good when the host stops.
        self._ready = asyncio.Event()
        self._was_ready = self._stopping = False
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._started: asyncio.Future[list[FunctionMetadata]] = self._loop.create_future()
        self.failed: asyncio.Future[StartError] = self._loop.create_future()
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The id of the worker process, None where none runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> list[FunctionMetadata]:
        """Start the worker process; return the functions of the app.

        Raises:
            StartError: the app cannot run.
        """
        self._supervision = asyncio.create_task(self._supervise())
        ends: list[asyncio.Future[Any]] = [self._started, self.failed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self.failed.done():
            raise self.failed.result()
        return self._started.result()

    async def invoke(self, function: Function, value: TypedData, trace_context: TraceContext) -> Answer:
        """Run a function on what triggered it; waits where a worker process is just being started.

        Raises:
            WorkerEndedError: the worker process ended before it answered, or the function ran longer than `timeout`.
        """
        await self._ready.wait()
        if self._stopping or self._channel is None:
            raise WorkerEndedError("The host is stopping.", is_final=True)
        invocation_id = str(uuid.uuid4())
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[invocation_id] = answer, trace_context
        inputs = {function.trigger_parameter: value, **dict.fromkeys(function.clients, self._client)}
        number = function.function_id
        self._channel.send(
            Invoke(invocation_id=invocation_id, function_id=number, inputs=inputs, trace_context=trace_context)
        )
        limit = self._time_limit
        timer = limit and self._loop.call_later(limit.total_seconds(), self._time_out, function.name)
        try:
            return await answer
        finally:
            del self._pending[invocation_id]
            if timer:
                timer.cancel()

    def trace_of(self, invocation_id: str) -> TraceContext | None:
        """Return the trace context of a running invocation, None where there is no such."""
        pending = self._pending.get(invocation_id)
        return None if pending is None else pending[1]

    async def stop(self) -> None:
        """End the worker process; pending invocations fail with WorkerEndedError."""
        self._stopping = True
        # Whoever waits for a worker process shall see that none follows.
        self._ready.set()
        if self._supervision is not None:
            self._supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervision

    def _time_out(self, name: str) -> None:
        """Kill the worker process of a function that has run for too long; all that runs in it fails as it does."""
        if self._process is not None:
            self._ready.clear()
            self._lose_invocations(f"Timeout value of {self._timeout} was exceeded by function: Functions.{name}")
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _lose_invocations(self, how: str) -> None:
        for answer, _ in self._pending.values():
            if not answer.done():
                answer.set_exception(WorkerEndedError(how, is_final=self._stopping))

    async def _supervise(self) -> None:
        """Run one worker process after the other."""
        failures = 0
        while True:
            self._was_ready = False
            try:
                problem = await self._run()
            except OSError as error:
                problem = StartError(f"the worker process cannot be started: {error}")
            failures = 0 if self._was_ready else failures + 1
            how = "" if self._process is None else _ending(self._process)
            if failures == MAX_STARTS:
                problem = StartError(f"the worker process ended {failures} times before it had imported the app: {how}")
            if problem is not None:
                self.failed.set_result(problem)
                return
            logger.warning("Worker process %s: %s; starting another", self.pid, how)
            if failures:
                await asyncio.sleep(FIRST_PAUSE_SECONDS * 2 ** (failures - 1))
            self.restarts += 1

    async def _run(self) -> StartError | None:
        """Run a process until it ends; return why no other can do better, if so."""
        ended: asyncio.Future[StartError | None] = self._loop.create_future()

        def end(problem: StartError | None = None) -> None:
            if not ended.done():
                ended.set_result(problem)

        channel = self._channel = Channel(lambda message: self._on_message(message, end), end)
        process = self._process = await self._spawn(channel)
        try:
            channel.send(Initialize(directory=str(self._directory), verbose=self._verbose))
            exited = asyncio.create_task(process.wait())
            exited.add_done_callback(lambda _: end())
            problem = await ended
            if not self._stopping:
                self._ready.clear()
            if problem is None:
                await asyncio.wait([exited], timeout=EXIT_GRACE_SECONDS)
            return problem
        finally:
            channel.close()
            await self._end(process)
            self._lose_invocations(_ending(process))

    def _on_message(self, message: Message, end: Callable[[StartError], None]) -> None:
        if isinstance(message, Answer):
            pending = self._pending.get(message.invocation_id)
            if pending is not None and not pending[0].done():
                pending[0].set_result(message)
        elif isinstance(message, Initialized):
            self._was_ready = True
            self._ready.set()
            if not self._started.done():
                self._started.set_result(message.functions)
        elif isinstance(message, NotInitialized):
            end(StartError(message.problem, details=message.details))

    async def _spawn(self, channel: Channel) -> asyncio.subprocess.Process:
        """Start the process at the other end of the channel."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
            await self._loop.create_connection(lambda: channel, sock=ours)
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sandbox.host.worker",
                str(theirs.fileno()),
                str(self._directory),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd=PROJECT,
                env=dict(self._environment),
                # A group of its own keeps Ctrl-C away from it: the host ends it, after its own work.
                process_group=0,
            )

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        """Make sure that the process is gone: SIGTERM, after a grace SIGKILL. Its socket is closed already."""
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_GRACE_SECONDS)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
