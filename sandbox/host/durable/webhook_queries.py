"""What a request to the management webhooks asks for; what makes no sense in its query is ignored."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sandbox.host.durable.task_hub import STATUS_NAMES, InstanceFilter
from sandbox.host.http_invocation import read_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

DEFAULT_PAGE = 100


def flag(query: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Read a yes or no; the client library writes `True`."""
    return query.get(name, str(default)).lower() == "true"


def moment(query: Mapping[str, str], name: str) -> datetime | None:
    """Read a time, in UTC where it names no offset, None where there is no readable one."""
    try:
        # A "+" of an offset that was not escaped arrives as a space.
        found = datetime.fromisoformat(query.get(name, "").replace(" ", "+"))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def page_size(query: Mapping[str, str]) -> int:
    """Read how many instances a page looks at."""
    top = query.get("top", "")
    return int(top) if top.isdecimal() else DEFAULT_PAGE


def instance_filter(query: Mapping[str, str]) -> InstanceFilter:
    """Read which instances a list or purge is about."""
    asked = {name.strip().lower() for name in query.get("runtimeStatus", "").split(",")}
    return InstanceFilter(
        statuses=[name for name in STATUS_NAMES.values() if name.lower() in asked],
        created_from=moment(query, "createdTimeFrom"),
        created_to=moment(query, "createdTimeTo"),
        prefix=query.get("instanceIdPrefix", ""),
    )


def instance_id_problem(instance_id: str) -> str | None:
    """Return what the extension has against an id that a caller wishes for an instance, None if nothing."""
    if instance_id.startswith("@"):
        return "Instance ids must not start with '@'."
    if any(char in "/\\#?" or not char.isprintable() for char in instance_id):
        return "Instance ids must not contain /, \\, #, ? or control characters."
    return None


async def json_text(request: Request) -> str | None:
    """Read a body of JSON as its text, None where it is empty.

    Raises:
        ValueError: it is not JSON.
    """
    text = (await read_body(request)).decode()
    if not text.strip():
        return None
    try:
        # As text: of bytes it would take a byte order mark, which nobody who reads the text later does.
        json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return text
