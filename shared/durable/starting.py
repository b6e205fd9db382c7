"""Starting a delivery once: the same instance id starts nothing twice, and again what was broken off."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from shared.delivery.batch_input import is_batch
from shared.delivery.durable_client import find, unavailable
from shared.delivery.problem import ProblemError, problem
from shared.delivery.redelivery import next_redelivery
from shared.delivery.settling import settling_pause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.delivery.durable_client import DurableClient, Instance

logger = logging.getLogger(__name__)


async def start_once(
    client: DurableClient,
    name: str,
    instance_id: str | None,
    input_: Mapping[str, Any],
    call_timeout: float,
) -> str:
    """Start the orchestration `name`, unless it is there already with the same input; give its instance id.

    `instance_id` is None for a delivery that is new in any case, and gets an id of its own. Any other is asked for
    first, for the host would overwrite a finished instance. That is what it is to do with one that was broken off: its
    caller asks again. The host refuses to start one that lives, as 409 or as 500 with "already exists", so it is asked
    again. `call_timeout` is the seconds of one call to the partner.

    Raises:
        ProblemError: 409 where the instance is there with another input, or was broken off and is redelivered under
            another id; 503 where it could not be started.
    """
    is_again = False
    if instance_id is None:
        instance_id = uuid.uuid4().hex
    elif there := await find(client, instance_id, show_input=True):
        _check_payload(there, input_)
        if not there.is_broken_off:
            return instance_id
        is_again, input_ = True, await _again(client, there, input_, call_timeout)
        logger.warning("delivery started again", extra={"instance_id": instance_id})
    try:
        await client.start_new(name, instance_id, input_)
    except Exception as exc:
        there = await find(client, instance_id, show_input=True)
        if there is None or (is_again and there.is_broken_off):
            detail = "The delivery could not be started; nothing was. Send it again, with the same Idempotency-Key."
            raise unavailable("orchestration not started", detail, instance_id, exc) from exc
        _check_payload(there, input_)
    return instance_id


async def _again(
    client: DurableClient, there: Instance, input_: Mapping[str, Any], call_timeout: float
) -> dict[str, Any]:
    """Give the input with which to start again what was broken off: it may have posted already.

    Raises:
        ProblemError: 409, somebody has had it redelivered since.
    """
    input_ = {**input_, "lookUp": "always"}
    if not is_batch(input_):
        return input_
    redelivery = await find(client, next_redelivery(there.id))
    if redelivery is not None and not redelivery.is_older_than(there):
        detail = f"The batch was broken off, and is redelivered as {redelivery.id}: watch that one."
        raise ProblemError(problem(409, detail))
    return {**input_, **settling_pause(there, call_timeout)}


def _check_payload(there: Instance, input_: Mapping[str, Any]) -> None:
    if _fingerprint(there.input) != _fingerprint(input_):
        raise ProblemError(problem(409, "The Idempotency-Key was used for another payload."))


def _fingerprint(input_: Any) -> bytes:  # noqa: ANN401, it is any JSON
    """Give what the caller sent in one form: the rest of an input is the app's, and may change with its settings.

    A batch is told by the digest of its records: how they are written in the input has changed between versions.
    """
    payload = {name: input_.get(name) for name in ("business", "digest")} if isinstance(input_, dict) else input_
    return msgspec.json.encode(payload, order="sorted")
