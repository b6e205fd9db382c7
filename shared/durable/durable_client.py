"""Orchestrations seen through the Durable client, with errors that mean one thing each."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shared.delivery.exchange import Reply
from shared.delivery.problem import ProblemError, problem

if TYPE_CHECKING:
    from datetime import datetime

    from shared.delivery.exchange import Request

logger = logging.getLogger(__name__)

FINISHED = {"Completed", "Failed", "Terminated"}
# Durable's own answer to a start says so, too.
POLL_AFTER = 10


class DurableClient(Protocol):
    """What is used of `DurableOrchestrationClient`."""

    async def start_new(
        self,
        orchestration_function_name: str,
        instance_id: str | None = None,
        client_input: Any = None,  # noqa: ANN401, it is any JSON
    ) -> str:
        """Start an orchestration."""

    async def get_status(self, instance_id: str, *, show_input: bool = False) -> Any:  # noqa: ANN401, the Durable SDK is untyped
        """Give an orchestration's status."""

    def get_client_response_links(self, request: Any, instance_id: str) -> dict[str, str]:  # noqa: ANN401, the Durable SDK is untyped
        """Give the management URLs of an orchestration."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An orchestration instance: `status` is Durable's runtimeStatus ("Running", "Completed", …).

    `created` and `updated` are when it was begun, and when it went on last; both have a time zone.
    """

    id: str
    status: str
    input: Any = None
    output: Any = None
    custom_status: Any = None
    created: datetime | None = None
    updated: datetime | None = None

    def is_older_than(self, other: Instance) -> bool:
        """Whether it was begun before the other was, which may have been begun anew since."""
        return self.created is not None and other.created is not None and self.created < other.created

    @property
    def is_broken_off(self) -> bool:
        """Whether it has failed without a verdict on its records: with its worker process, or by a defect.

        A delivery that is rejected or given up has failed as well, and its custom status speaks of no next attempt.
        """
        last = self.custom_status if isinstance(self.custom_status, dict) else {}
        return self.status == "Failed" and ("outcome" not in last or "nextAttempt" in last)


async def find(client: DurableClient, instance_id: str, *, show_input: bool = False) -> Instance | None:
    """Give the instance, None where there is none.

    Raises:
        ProblemError: 503, Durable's state cannot be read.
    """
    try:
        status = await client.get_status(instance_id, show_input=show_input)
        # The SDK makes a status of the host's error document, too. It has no runtime status, as where there is none.
        if error := getattr(status, "ExceptionMessage", None):
            raise RuntimeError(error)  # noqa: TRY301, it joins the SDK's own bare exceptions
    except Exception as exc:
        detail = "The state of the delivery cannot be read now. Send the request again, with the same Idempotency-Key."
        raise unavailable("orchestration not found out", detail, instance_id, exc) from exc
    if status.runtime_status is None:
        return None
    return Instance(
        instance_id,
        status.runtime_status.value,
        _value(status.input_),
        status.output,
        status.custom_status,
        status.created_time,
        status.last_updated_time,
    )


def unavailable(event: str, detail: str, instance_id: str, exc: Exception) -> ProblemError:
    """Give the 503 for what the Durable SDK raised, and log it."""
    # The Durable SDK raises bare exceptions of every kind, and their text is all there is to know.
    logger.error(event, extra={"instance_id": instance_id, "reason": f"{type(exc).__name__}: {exc}"})
    return ProblemError(problem(503, detail, retry_after=1))


def accepted(client: DurableClient, request: Request, instance_id: str) -> Reply:
    """Give Durable's 202 with the links under which the instance can be watched."""
    links = client.get_client_response_links(request, instance_id)
    headers = {"location": links["statusQueryGetUri"], "retry-after": str(POLL_AFTER)}
    return Reply.json(202, links, headers)


async def wait_until_finished(client: DurableClient, instance_id: str, seconds: float) -> Instance | None:
    """Watch an instance for so many seconds; give it when it has finished, None where it has not.

    A look that fails is one that saw nothing: the delivery has begun, its caller is to be told where to watch it.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    # Twice as long after each look: a quick delivery is seen at once, a slow one is not asked for a hundred times.
    pause = 0.05
    while True:
        with suppress(ProblemError):
            instance = await find(client, instance_id)
            if instance is not None and instance.status in FINISHED:
                return instance
        left = deadline - clock()
        if left <= 0:
            return None
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, 1.0)


def _value(text: object) -> Any:  # noqa: ANN401, it is any JSON
    """Give the input as it was: the status API has it as JSON text in a string, once or twice over."""
    while isinstance(text, str):
        try:
            text = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text
