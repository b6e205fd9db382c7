"""What a request to the management webhooks asks for: its query and its ids, read and checked. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sandbox.host.durable.instances import STATUSES, InstanceFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

# The platform's storage allows no others in an instance id.
FORBIDDEN_IN_INSTANCE_ID = frozenset("/\\#?")
MAX_INSTANCE_ID = 100
DEFAULT_PAGE = 100


def flag(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Read a yes or no; the client library writes `True`."""
    return query.get(name, str(default)).lower() == "true"


def moment(query: Mapping[str, str], name: str) -> datetime | None:
    """Read a time, in UTC where it names no offset, None where it is absent.

    Raises:
        ValueError: it is not ISO 8601.
    """
    text = query.get(name)
    if not text:
        return None
    # A "+" of an offset that was not escaped arrives as a space.
    found = datetime.fromisoformat(text.replace(" ", "+"))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def seconds(query: Mapping[str, str], name: str) -> float | None:
    """Read a number of seconds, None where it is absent.

    Raises:
        ValueError: it is no number, or negative.
    """
    text = query.get(name)
    if text is None:
        return None
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {text!r}, not a number of seconds")
    return value


def page_size(query: Mapping[str, str]) -> int:
    """Read how many instances to list.

    Raises:
        ValueError: it is not a positive whole number.
    """
    top = int(query.get("top", DEFAULT_PAGE))
    if top < 1:
        raise ValueError(f"top is {top}, not a positive whole number")
    return top


def instance_filter(query: Mapping[str, str]) -> InstanceFilter:
    """Read which instances a list or purge is about.

    Raises:
        ValueError: a status or a time makes no sense.
    """
    names = [name.strip() for name in query.get("runtimeStatus", "").split(",") if name.strip()]
    unknown = [name for name in names if name.lower() not in STATUSES]
    if unknown:
        raise ValueError(f"runtimeStatus {unknown[0]!r} is none of {', '.join(sorted(STATUSES))}")
    return InstanceFilter(
        statuses=[STATUSES[name.lower()] for name in names],
        created_from=moment(query, "createdTimeFrom"),
        created_to=moment(query, "createdTimeTo"),
        prefix=query.get("instanceIdPrefix", ""),
    )


def check_instance_id(instance_id: str) -> None:
    """Check the id that a caller wishes for an instance.

    Raises:
        ValueError: the platform does not allow it.
    """
    if instance_id.startswith("@"):
        raise ValueError("An instance id must not start with '@'.")
    if len(instance_id) > MAX_INSTANCE_ID:
        raise ValueError(f"An instance id must have at most {MAX_INSTANCE_ID} characters.")
    if any(char in FORBIDDEN_IN_INSTANCE_ID or not char.isprintable() for char in instance_id):
        raise ValueError("An instance id must not contain /, \\, #, ? or control characters.")
