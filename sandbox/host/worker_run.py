"""One worker process, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.host.errors import StartError
from sandbox.host.messages import Answer, Channel, FunctionMetadata, Initialize, Initialized, NotInitialized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.host.messages import Message

STOP_GRACE_SECONDS = 2.0
# A process that has closed its socket is about to end; its exit code is worth a moment.
EXIT_GRACE_SECONDS = 1.0
# The folder that has this package: Python finds the worker's module from it.
PROJECT = Path(__file__).resolve().parents[2]


class WorkerRun:
    """A worker process that has imported the app in `directory`, or is about to.

    `on_ready` is called with the app's functions, then `on_answer` with each answer. The process gets `environment` and
    nothing else of this one.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        on_ready: Callable[[list[FunctionMetadata]], None],
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._directory = directory
        self._environment = environment
        self._on_ready = on_ready
        self._on_answer = on_answer
        # Its result is why no other process can do better, None where the socket was just closed.
        self._outcome: asyncio.Future[StartError | None] = asyncio.get_running_loop().create_future()
        self._channel = Channel(self._on_message, lambda: self._set_outcome(None))
        self._process: asyncio.subprocess.Process | None = None
        self.send = self._channel.send
        self.was_ready = False

    @property
    def pid(self) -> int | None:
        """The id of the process, None before it is started."""
        return None if self._process is None else self._process.pid

    @property
    def ending(self) -> str:
        """How the process ended, in the platform's words: a signal counts from 128."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return f"{sys.executable} runs no more"
        code = code if code >= 0 else 128 - code
        return f"{sys.executable} exited with code {code} (0x{code:X})"

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def run(self, *, verbose: bool) -> StartError | None:
        """Run the process until it ends; gives the reason why the app cannot run, if that is why it ended."""
        try:
            self._process = await self._spawn()
            self._channel.send(Initialize(directory=str(self._directory), verbose=verbose))
            ended = asyncio.create_task(self._process.wait())
            ended.add_done_callback(lambda _: self._set_outcome(None))
            problem = await self._outcome
            if problem is None:
                await asyncio.wait([ended], timeout=EXIT_GRACE_SECONDS)
            return problem  # noqa: TRY300 - an else block would hide the return among the handlers
        except OSError as error:
            return StartError(f"the worker process cannot be started: {error}")
        finally:
            self._channel.close()
            if self._process is not None:
                await self._end(self._process)

    def _set_outcome(self, outcome: StartError | None) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Answer):
            self._on_answer(message)
        elif isinstance(message, Initialized):
            self.was_ready = True
            self._on_ready(message.functions)
        elif isinstance(message, NotInitialized):
            self._set_outcome(StartError(message.problem, details=message.details))

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start the process at the other end of the channel."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)  # noqa: FBT003 - the standard library's signature
            await asyncio.get_running_loop().create_connection(lambda: self._channel, sock=ours)
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
