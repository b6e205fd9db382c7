"""The options of a delivery and the inputs of orchestrations.

An orchestrator may not read settings, so a delivery keeps the options that it began with in its input. The intake is
not the only one that can start orchestrations: whoever has the Durable extension's key can. An input that the intake
never writes fails at the first step instead of looping or exhausting the memory. The activities check the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.errors import DeliveryInputError
from shared.rules.retry import MAX_DEADLINE, MAX_WAIT, RetryPolicy

MAX_RECORDS = 1_000
MAX_SETTLE = 3_600.0
# No setting allows more.
_MAX_CHUNK, _MAX_PARALLEL = 1_000, 10_000
CHUNKS_OF_AN_ORDER = 5
"""An activity of a batch works through so many chunks. More would save turns of the orchestrator, but last longer."""

# Characters of an input's texts: a megabyte that zlib cannot compress, in base64.
MAX_PACKED = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """How a delivery goes about it. `settle` is the seconds until a stored record shows up in a look-up.

    Of a batch, `parallel` activities at a time have at most `order` records each, and call the partner for `chunk` of
    these at a time.
    """

    retry: RetryPolicy
    settle: float = 5.0
    chunk: int = 50
    parallel: int = 1
    order: int = 50

    @classmethod
    def of_batch(cls, retry: RetryPolicy, settle: float, chunk: int, max_connections: int) -> DeliveryOptions:
        """Return the options of a batch: no more chunks at a time than there are connections for."""
        return cls(retry, settle, chunk, max(1, max_connections // chunk), CHUNKS_OF_AN_ORDER * chunk)

    @classmethod
    def from_json(cls, terms: object) -> DeliveryOptions:
        """Read what `to_json` wrote.

        Raises:
            DeliveryInputError: these are no options that a setting allows.
        """
        if not isinstance(terms, dict) or not isinstance(terms.get("retry", {}), dict):
            raise _refused("its terms are not an object")
        retry = terms.get("retry", {})
        for name, most in (("deadline", MAX_DEADLINE), ("first", MAX_WAIT), ("max", MAX_WAIT)):
            _check_seconds(f"terms.retry.{name}", retry.get(name, 1), most)
        _check_seconds("terms.settle", terms.get("settle", 0), MAX_SETTLE, may_be_zero=True)
        for name, limit in (("chunk", _MAX_CHUNK), ("parallel", _MAX_PARALLEL), ("order", _MAX_CHUNK * 5)):
            _check_whole(f"terms.{name}", terms.get(name, 1), 1, limit)
        known = {name: terms[name] for name in ("settle", "chunk", "parallel", "order") if name in terms}
        return cls(RetryPolicy.from_json(retry), **known)

    def to_json(self) -> dict[str, Any]:
        """Return a plain object for an orchestration's input."""
        return {
            "retry": self.retry.to_json(),
            "settle": self.settle,
            "chunk": self.chunk,
            "parallel": self.parallel,
            "order": self.order,
        }


def check_delivery(input_: object) -> dict[str, Any]:
    """Return the input of one record's delivery.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    delivery = _check_common(input_)
    _check_text("record", delivery.get("record"), MAX_PACKED)
    _check_text("key", delivery.get("key", ""), 255)
    return delivery


def check_batch(input_: object) -> dict[str, Any]:
    """Return the input of a batch; its records stay packed.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    batch = _check_common(input_)
    _check_text("digest", batch.get("digest"), 128)
    _check_text("packed", batch.get("packed"), MAX_PACKED)
    _check_text("keys", batch.get("keys", ""), MAX_PACKED)
    _check_whole("total", batch.get("total"), 0, MAX_RECORDS)
    return batch


def _check_common(input_: object) -> dict[str, Any]:
    if not isinstance(input_, dict) or not isinstance(input_.get("resource"), str):
        raise _refused("it names no resource")
    _check_seconds("pause", input_.get("pause", 1), MAX_WAIT)
    if not isinstance(input_.get("progress", {}), dict):
        raise _refused("its progress is not an object")
    DeliveryOptions.from_json(input_.get("terms"))
    return input_


def _check_text(name: str, value: object, most: int) -> None:
    if not isinstance(value, str) or len(value) > most:
        raise _refused(f"its {name} is not a text of at most {most} characters")


def _check_seconds(name: str, value: object, most: float, *, may_be_zero: bool = False) -> None:
    # NaN is neither.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (0 < value <= most or (may_be_zero and value == 0)):  # type: ignore[operator]
        raise _refused(f"its {name} is not a number of seconds up to {most:g}")


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _refused(f"its {name} is not a whole number from {least} to {most}")


def _refused(why: str) -> DeliveryInputError:
    return DeliveryInputError(f"This app starts no delivery with such an input: {why}")
