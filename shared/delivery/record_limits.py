"""The limits of a record beside its model's rules: its size, and what the Durable SDK would not hand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.api.business import MAX_BYTES, Business
from shared.delivery.custom_object import CUSTOM_OBJECT_MARK, custom_object_fault
from shared.errors import Fault

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
    text = business.encode()
    faults = [fault] if (fault := size_fault(text)) else []
    if CUSTOM_OBJECT_MARK in text and (fault := custom_object_fault(business.to_json())):
        faults.append(fault)
    return faults
