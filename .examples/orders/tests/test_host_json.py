"""host.json fits the app: its concurrency, its privacy, its version, and its twin for the Durable Task Scheduler."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from shared.settings import Settings

PROJECT = Path(__file__).parent.parent
CONFIGURATION = (PROJECT / "docs" / "configuration.md").read_text()
DEFAULTS = Settings.from_environ(
    {
        "BUSINESS_API_URL": "https://partner.example",
        "BUSINESS_API_TOKEN_URL": "https://partner.example/token",
        "BUSINESS_API_CLIENT_ID": "id",
        "BUSINESS_API_CLIENT_SECRET": "secret",
    }
)


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PROJECT / name).read_text())
    return content


HOST = read("host.json")
DURABLE = HOST["extensions"]["durableTask"]


def members(value: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Give every value that is no object by its path."""
    found: dict[str, Any] = {}
    for name, below in value.items():
        here = f"{path}.{name}" if path else name
        found |= members(below, here) if isinstance(below, dict) else {here: below}
    return found


def seconds(text: str) -> float:
    hours, minutes, rest = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=int(rest)).total_seconds()


def test_the_host_is_version_4_with_the_bundle_that_knows_all_that_is_configured() -> None:
    assert HOST["version"] == "2.0"
    assert HOST["extensionBundle"] == {
        "id": "Microsoft.Azure.Functions.ExtensionBundle",
        "version": "[4.32.0, 5.0.0)",
    }


def test_the_scheduler_s_file_differs_in_the_backend_only() -> None:
    scheduler = read("host.dts.json")
    backend = scheduler["extensions"]["durableTask"].pop("storageProvider")
    storage = read("host.json")
    storage["extensions"]["durableTask"].pop("storageProvider")
    assert scheduler == storage
    assert backend == {
        "type": "azureManaged",
        "connectionStringName": "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
    }


def test_the_members_stand_in_the_same_order_in_both_files() -> None:
    without_backend = re.compile(r'"storageProvider": \{.*?\}', re.DOTALL)
    texts = [without_backend.sub("", (PROJECT / name).read_text()) for name in ("host.json", "host.dts.json")]
    assert texts[0] == texts[1]


def test_no_input_or_output_reaches_a_trace() -> None:
    assert DURABLE["tracing"] == {
        "distributedTracingEnabled": True,
        "version": "V2",
        "traceInputsAndOutputs": False,
        "traceReplayEvents": False,
    }
    assert HOST["telemetryMode"] == "OpenTelemetry"


def test_singles_never_wait_for_a_connection() -> None:
    assert DURABLE["maxConcurrentActivityFunctions"] <= DEFAULTS.max_connections


def test_a_call_of_a_full_instance_of_batches_finds_a_connection_within_its_time() -> None:
    waiting = DURABLE["maxConcurrentActivityFunctions"] * DEFAULTS.delivery.chunk
    rounds_of_one_second = waiting / DEFAULTS.max_connections
    assert rounds_of_one_second < DEFAULTS.timeout


def test_a_batch_activity_ends_before_the_host_ends_it() -> None:
    # A record is looked up, posted, looked up again; at the worst each takes its whole time, and so does a new token.
    assert seconds(HOST["functionTimeout"]) > 4 * DEFAULTS.timeout


def test_the_task_hub_has_a_name_that_every_backend_takes() -> None:
    # 3 to 45 letters and digits, a letter first: the strictest, Azure Storage's.
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]{2,44}", DURABLE["hubName"])


def test_an_older_instance_of_the_app_leaves_newer_orchestrations_alone() -> None:
    assert re.fullmatch(r"\d+\.\d+", DURABLE["defaultVersion"])
    assert DURABLE["versionMatchStrategy"] == "CurrentOrOlder"


def test_the_routes_are_where_the_documentation_says() -> None:
    assert HOST["extensions"]["http"]["routePrefix"] == "api"


def test_browsers_use_https_for_half_a_year_at_least_and_answers_are_neither_kept_nor_guessed() -> None:
    http = HOST["extensions"]["http"]
    assert http["customHeaders"] == {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    hsts = dict(http["hsts"])
    # Days. The app's domain is azurewebsites.net's to speak for, or a shared one.
    assert 180 <= int(hsts.pop("maxAge")) <= 730
    assert hsts == {"isEnabled": True, "includeSubDomains": False, "preload": False}


def test_the_store_is_one_that_durable_takes() -> None:
    storage = DURABLE["storageProvider"]
    # Azure Storage's limits: DurableTask.AzureStorage refuses more partitions, and a hub keeps the number that it has.
    assert 1 <= storage["partitionCount"] <= 16
    # What waits for a message in an idle app waits as long.
    assert 0 < seconds(storage["maxQueuePollingInterval"]) <= 30
    assert storage["useTablePartitionManagement"] is True


def test_every_member_is_explained_with_its_value() -> None:
    section = CONFIGURATION.partition("## host.json")[2].partition("### The Durable Task Scheduler")[0]
    explained = dict(re.findall(r"^\| `([\w.-]+)` \| `([^`]*)` \| \S", section, re.MULTILINE))
    assert explained == {
        path: value if isinstance(value, str) else json.dumps(value) for path, value in members(HOST).items()
    }
