"""What a durable client binding receives: the URLs of the management webhooks and of the client library's endpoint."""

from __future__ import annotations

import json

WEBHOOKS = "/runtime/webhooks/durabletask"
RPC = "/durabletask"

# The client library puts an instance's id, and a caller an event's name or a reason, in the place of these.
_ID, _EVENT_NAME, _REASON = "INSTANCEID", "{eventName}", "{text}"


def _query(hub_name: str) -> str:
    """Give the query that every webhook URL carries. No key stands in it: the host asks for none."""
    return f"taskHub={hub_name}&connection=Storage"


def management_urls(origin: str, hub_name: str, instance_id: str) -> dict[str, str]:
    """Give the webhook URLs of one instance; `origin` is scheme, host and port."""
    instance, query = f"{origin}{WEBHOOKS}/instances/{instance_id}", _query(hub_name)
    return {
        "id": instance_id,
        "statusQueryGetUri": f"{instance}?{query}",
        "sendEventPostUri": f"{instance}/raiseEvent/{_EVENT_NAME}?{query}",
        "terminatePostUri": f"{instance}/terminate?reason={_REASON}&{query}",
        "rewindPostUri": f"{instance}/rewind?reason={_REASON}&{query}",
        "purgeHistoryDeleteUri": f"{instance}?{query}",
        "restartPostUri": f"{instance}/restart?{query}",
        "suspendPostUri": f"{instance}/suspend?reason={_REASON}&{query}",
        "resumePostUri": f"{instance}/resume?reason={_REASON}&{query}",
    }


def client_payload(origin: str, hub_name: str) -> str:
    """Give the value of a durable client binding, as JSON; `origin` is scheme, host and port."""
    create = f"{origin}{WEBHOOKS}/orchestrators/{{functionName}}[/{{instanceId}}]?{_query(hub_name)}"
    wait = "&timeout={timeoutInSeconds}&pollingInterval={intervalInSeconds}"
    return json.dumps(
        {
            "taskHubName": hub_name,
            "connectionName": None,
            "creationUrls": {
                "createNewInstancePostUri": create,
                "createAndWaitOnNewInstancePostUri": create + wait,
            },
            "managementUrls": management_urls(origin, hub_name, _ID),
            "baseUrl": f"{origin}{WEBHOOKS}",
            "requiredQueryStringParameters": _query(hub_name),
            "rpcBaseUrl": f"{origin}{RPC}/",
            "httpBaseUrl": f"{origin}{WEBHOOKS}",
        }
    )
