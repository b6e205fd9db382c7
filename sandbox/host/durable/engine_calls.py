"""What stands in for gRPC and threads, so that the durable engine runs inside an event loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

from sandbox.host.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc


class WorkSignal(threading.Event):
    """The event on which the engine waits for work: never waits, but says that there is none left."""

    def __init__(self, on_work: Callable[[], None]) -> None:
        super().__init__()
        self._on_work = on_work
        self.drained = False

    def set(self) -> None:
        """Say that there is work."""
        self._on_work()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - the signature is threading.Event's
        """Note that the engine has nothing more to give."""
        self.drained = True
        return False


class CallContext:
    """What the engine's methods need of a gRPC call's context."""

    def __init__(self, signal: WorkSignal) -> None:
        self._signal = signal

    def is_active(self) -> bool:
        """Say whether to go on giving work items."""
        return not self._signal.drained

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call, as gRPC does by an exception."""
        raise EngineError(code, details)
