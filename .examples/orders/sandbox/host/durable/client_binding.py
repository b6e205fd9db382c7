"""What a durable client binding receives: the URLs of the management webhooks and of the client library's endpoint."""

from __future__ import annotations

import json
from urllib.parse import quote

WEBHOOKS = "/runtime/webhooks/durabletask"
RPC = "/durabletask"

# The client library puts an instance's id, and a caller an event's name or a reason, in the place of these.
_ID, _EVENT_NAME, _REASON = "INSTANCEID", "{eventName}", "{text}"


def _query(hub_name: str, key: str | None) -> str:
    """Return the query that every webhook URL carries; without keys it names none."""
    return f"taskHub={hub_name}&connection=Storage" + (f"&code={key}" if key is not None else "")


def management_urls(origin: str, hub_name: str, instance_id: str, key: str | None = None) -> dict[str, str]:
    """Return the webhook URLs of one instance; `origin` is scheme, host and port, `key` the system key."""
    instance, query = f"{origin}{WEBHOOKS}/instances/{quote(instance_id, safe='')}", _query(hub_name, key)
    return {
        "id": instance_id,
        "statusQueryGetUri": f"{instance}?{query}",
        "sendEventPostUri": f"{instance}/raiseEvent/{_EVENT_NAME}?{query}",
        "terminatePostUri": f"{instance}/terminate?reason={_REASON}&{query}",
        "purgeHistoryDeleteUri": f"{instance}?{query}",
        "restartPostUri": f"{instance}/restart?{query}",
        "suspendPostUri": f"{instance}/suspend?reason={_REASON}&{query}",
        "resumePostUri": f"{instance}/resume?reason={_REASON}&{query}",
    }


def client_payload(origin: str, hub_name: str, key: str | None = None) -> str:
    """Return the value of a durable client binding, as JSON; `origin` is scheme, host and port."""
    query = _query(hub_name, key)
    create = f"{origin}{WEBHOOKS}/orchestrators/{{functionName}}[/{{instanceId}}]?{query}"
    wait = "&timeout={timeoutInSeconds}&pollingInterval={intervalInSeconds}"
    # The platform tells the client library how to rewind, but no caller of the webhooks.
    rewind = f"{origin}{WEBHOOKS}/instances/{_ID}/rewind?reason={_REASON}&{query}"
    return json.dumps(
        {
            "taskHubName": hub_name,
            "connectionName": None,
            "creationUrls": {
                "createNewInstancePostUri": create,
                "createAndWaitOnNewInstancePostUri": create + wait,
            },
            "managementUrls": {**management_urls(origin, hub_name, _ID, key), "rewindPostUri": rewind},
            "baseUrl": f"{origin}{WEBHOOKS}",
            "requiredQueryStringParameters": query,
            "rpcBaseUrl": f"{origin}{RPC}/",
            "httpBaseUrl": f"{origin}{WEBHOOKS}",
        }
    )
