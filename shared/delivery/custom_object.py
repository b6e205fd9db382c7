"""JSON that the Durable SDK does not hand on as it is: what looks like one of its serialized Python objects.

Whatever it reads from a history, it searches for objects with the members `__class__`, `__module__` and `__data__`, and
makes instances of the classes they name (azure.functions._durable_functions). A caller's or the partner's JSON must not
get that far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

MARKS = frozenset({"__class__", "__module__", "__data__"})
CUSTOM_OBJECT_MARK = b'"__class__"'
"""JSON as msgspec writes it has no such object where it does not have this: that is found out in no time."""


def custom_object_fault(value: object) -> Fault | None:
    """Give the fault of the first object in a JSON value that the Durable SDK would take for its own, None for none."""
    pointer = _find(value)
    if pointer is None:
        return None
    return Fault(
        pointer, f"must not have the members {', '.join(sorted(MARKS))} together: Durable Functions keeps them"
    )


def _find(value: object) -> str | None:
    members: Iterable[tuple[object, object]]
    if isinstance(value, dict):
        if value.keys() >= MARKS:
            return ""
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    else:
        return None
    for name, member in members:
        if isinstance(member, dict | list):
            pointer = _find(member)
            if pointer is not None:
                return f"/{str(name).replace('~', '~0').replace('/', '~1')}{pointer}"
    return None
