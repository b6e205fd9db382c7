"""Every error that the host raises on purpose.

HostError
├── StartError            the host cannot start, or cannot go on: one line for the person who started it
├── BodyTooLargeError     an HTTP request's body exceeds the limit
├── WorkerEndedError      the worker process ended before it answered an invocation
└── EngineError           the durable engine refused an operation: an unfinished instance has the id of a new one
"""

from __future__ import annotations


class HostError(Exception):
    """The root of every error that the host raises on purpose."""


class StartError(HostError):
    """The host cannot start, or cannot go on; the text is one line that says what to mend.

    `details` may have a traceback, which is shown on request.
    """

    def __init__(self, problem: str, *, details: str = "") -> None:
        super().__init__(" ".join(problem.split()))
        self.details = details


class BodyTooLargeError(HostError):
    """The body of an HTTP request exceeds the limit: it is answered with 413."""


class WorkerEndedError(HostError):
    """The worker process ended before it answered an invocation; the text says how, in the platform's words.

    Whether the function has acted is unknown. `is_final` says that the host is stopping, so no other worker follows.
    """

    def __init__(self, how: str, *, is_final: bool = False) -> None:
        super().__init__(how)
        self.is_final = is_final


class EngineError(HostError):
    """The durable engine refused an operation."""
