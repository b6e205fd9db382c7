"""Starting and watching orchestrations through the Durable client, with errors that mean one thing each."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from shared.delivery.exchange import Reply
from shared.delivery.problem import ProblemError, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """An orchestration instance: `status` is Durable's runtimeStatus ("Running", "Completed", …)."""

    id: str
    status: str
    input: Any = None
    output: Any = None
    custom_status: Any = None

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
        raise _unavailable("orchestration not found out", detail, instance_id, exc) from exc
    if status.runtime_status is None:
        return None
    return Instance(
        instance_id, status.runtime_status.value, _value(status.input_), status.output, status.custom_status
    )


async def start_once(client: DurableClient, name: str, instance_id: str | None, input_: Mapping[str, Any]) -> str:
    """Start the orchestration `name`, unless it is there already with the same input; give its instance id.

    `instance_id` is None for a delivery that is new in any case, and gets an id of its own. Any other is asked for
    first, for the host would overwrite a finished instance. That is what it is to do with one that was broken off: its
    caller asks again. The host refuses to start one that lives, as 409 or as 500 with "already exists", so it is asked
    again.

    Raises:
        ProblemError: 409 where the instance is there with another input, 503 where it could not be started.
    """
    is_again = False
    if instance_id is None:
        instance_id = uuid.uuid4().hex
    elif there := await find(client, instance_id, show_input=True):
        _check_payload(there, input_)
        if not there.is_broken_off:
            return instance_id
        logger.warning("delivery started again", extra={"instance_id": instance_id})
        # It may have posted already.
        is_again, input_ = True, {**input_, "lookUp": "always"}
    try:
        await client.start_new(name, instance_id, input_)
    except Exception as exc:
        there = await find(client, instance_id, show_input=True)
        if there is None or (is_again and there.is_broken_off):
            detail = "The delivery could not be started; nothing was. Send it again, with the same Idempotency-Key."
            raise _unavailable("orchestration not started", detail, instance_id, exc) from exc
        _check_payload(there, input_)
    return instance_id


def _check_payload(there: Instance, input_: Mapping[str, Any]) -> None:
    if _fingerprint(there.input) != _fingerprint(input_):
        raise ProblemError(problem(409, "The Idempotency-Key was used for another payload."))


def _unavailable(event: str, detail: str, instance_id: str, exc: Exception) -> ProblemError:
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


def _fingerprint(input_: Any) -> bytes:  # noqa: ANN401, it is any JSON
    """Give what the caller sent in one form: the rest of an input is the app's, and may change with its settings.

    A batch is told by the digest of its records: how they are written in the input has changed between versions.
    """
    payload = {name: input_.get(name) for name in ("business", "digest")} if isinstance(input_, dict) else input_
    return msgspec.json.encode(payload, order="sorted")
