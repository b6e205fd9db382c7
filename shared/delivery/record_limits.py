"""The limits of a record beside its model's rules: its size, and what the Durable SDK would not hand on.

The intake checks them before anything starts. The activities check them again: whoever has the Durable extension's key
starts orchestrations without the intake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shared.api import strict_json
from shared.api.business import MAX_BYTES, Business
from shared.delivery.custom_object import CUSTOM_OBJECT_MARK, custom_object_fault
from shared.errors import Fault, InvalidBusinessError

if TYPE_CHECKING:
    from collections.abc import Sized


def size_fault(text: Sized) -> Fault | None:
    """Give the fault of a record whose JSON text in UTF-8 is too long, None for none."""
    if len(text) <= MAX_BYTES:
        return None
    return Fault("", f"has {len(text)} bytes, more than the {MAX_BYTES} allowed")


def limit_faults(business: Business) -> list[Fault]:
    """Give the faults of a record that is longer as it is sent on than as it came, or that Durable would not hand on.

    It is written out as text first: numbers may be written longer there.
    """
    return _limit_faults(business, business.encode())


def checked_again(record: object, *, is_json: bool = False) -> Business:
    """Give a record that is at an activity as if it came to the intake now.

    `is_json` says that msgspec has decoded it: then it has nothing that JSON cannot say.

    Raises:
        InvalidBusinessError: the intake would refuse it, or it is no JSON at all.
    """
    business = Business.from_json(record)
    try:
        text = business.encode()
        faults = _limit_faults(business, text)
        # Each attempt comes through here, and the strict decoder takes several times as long.
        is_plain = strict_json.is_plain(text)
        decode = msgspec.json.decode if is_plain else strict_json.decode
        # Not before its size is known. NaN is written as null, objects of classes as their members: they come back as
        # something else.
        if not faults and not (is_plain and is_json) and decode(text) != record:
            faults = [Fault("", "is not JSON as this app takes it")]
    except strict_json.JsonError as exc:
        faults = [exc.fault]
    except (ValueError, TypeError, RecursionError):
        # A lone surrogate, an object that cannot be written, a depth that nobody can follow.
        faults = [Fault("", "is not JSON as this app takes it")]
    if faults:
        raise InvalidBusinessError(faults)
    return business


def _limit_faults(business: Business, text: bytes) -> list[Fault]:
    faults = [fault] if (fault := size_fault(text)) else []
    if CUSTOM_OBJECT_MARK in text and (fault := custom_object_fault(business.to_json())):
        faults.append(fault)
    return faults
