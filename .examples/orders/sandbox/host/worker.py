"""The worker process: imports the app and runs its functions, as the host asks over a socket.

`worker_run` starts it, with the socket's file descriptor as an argument. The app's coroutines run on this process's one
event loop, its plain functions in the runtime's threads. The process ends with its host, however that ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import sys
import threading

from sandbox.host import runtime
from sandbox.host.logs import configure_logging
from sandbox.host.messages import Answer, Channel, Initialize, Invoke, Message, RpcException

logger = logging.getLogger(__name__)


class Worker:
    """Answers the host's messages; the tasks of running functions are held until they are done.

    An event loop only refers weakly to its tasks, so an invocation that nothing else holds could be collected while it
    waits.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._channel = Channel(self._on_message, self._ended.set)

    async def serve(self, connection: socket.socket) -> None:
        """Answer messages until the host closes the connection."""
        await asyncio.get_running_loop().create_connection(lambda: self._channel, sock=connection)
        await self._ended.wait()

    def _on_message(self, message: Message) -> None:
        task = asyncio.ensure_future(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message) -> None:
        if isinstance(message, Initialize):
            configure_logging(verbose=message.verbose)
            self._channel.send(await runtime.initialize(message, os.environ))
        elif isinstance(message, Invoke):
            try:
                answer = await runtime.invoke(message)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                # As on the platform, whose worker catches no more than an Exception.
                logger.exception(
                    "A function let a BaseException out: invocation %s is never answered", message.invocation_id
                )
                return
            try:
                self._channel.send(answer)
            except (TypeError, ValueError) as error:
                # Text with lone surrogates, for one, has no encoding.
                exception = RpcException(message=f"{type(error).__name__}: the result cannot be sent: {error}")
                self._channel.send(Answer(invocation_id=message.invocation_id, exception=exception))


def _end_with_host(descriptor: int) -> None:
    """End this process when the host's end of the socket is closed, even while the app blocks the event loop."""
    hangup = select.poll()
    hangup.register(descriptor, 0)
    hangup.poll()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def main() -> None:
    """Run the worker: its arguments are the descriptor of an inherited socket, and the app's folder."""
    descriptor, directory = int(sys.argv[1]), sys.argv[2]
    os.chdir(directory)
    # The app's folder takes the place of the folder from which Python found this module.
    sys.path[0] = directory
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the standard library's signature
    connection = socket.socket(fileno=descriptor)
    connection.setblocking(False)  # noqa: FBT003 - the same
    threading.Thread(target=_end_with_host, args=(descriptor,), daemon=True, name="end-with-host").start()
    asyncio.run(Worker().serve(connection))


if __name__ == "__main__":
    main()
