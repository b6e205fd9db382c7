"""The function app is one on Flex Consumption, runs as its identity, and fits host.json."""

from __future__ import annotations

import re

from tests.bicep_template import member, text
from tests.infra_files import BY_NAME, MAIN, PROJECT, default, host_json, parameters_of_module, resource, value

FUNCTION_APP, SCHEDULER = BY_NAME["function-app"], BY_NAME["scheduler"]
APP = resource("function-app", "app")
CONFIGURATION = member(APP, "properties", "functionAppConfig")


def test_the_app_runs_on_flex_consumption() -> None:
    plan = resource("function-app", "plan")
    assert value(plan, "sku") == "{ name: 'FC1', tier: 'FlexConsumption' }"
    # Linux, in the words of App Service.
    assert value(plan, "properties", "reserved") == "true"
    assert value(APP, "kind") == "functionapp,linux"
    assert value(APP, "properties", "serverFarmId") == "plan.id"


def test_the_app_runs_the_python_that_the_project_is_tested_with() -> None:
    assert value(CONFIGURATION, "runtime") == "{ name: 'python', version: pythonVersion }"
    tested = (PROJECT / ".python-version").read_text().strip()
    assert default(FUNCTION_APP, "variable", "pythonVersion") == tested


def test_the_app_is_its_identity_to_everything() -> None:
    assert value(APP, "identity", "type") == "UserAssigned"
    assert value(APP, "identity", "userAssignedIdentities") == "{ '${identityId}': {} }"
    assert value(APP, "properties", "keyVaultReferenceIdentity") == "identityId"
    assert parameters_of_module("functionApp")["identityId"] == "identity.outputs.id"
    assert default(BY_NAME["identity"], "output", "id") == "identity.id"
    assert default(BY_NAME["identity"], "output", "clientId") == "identity.properties.clientId"


def test_the_package_is_read_as_the_identity_from_the_container_made_for_it() -> None:
    storage = member(CONFIGURATION, "deployment", "storage")
    assert value(storage, "type") == "blobContainer"
    assert value(storage, "value") == "packageContainerUrl"
    assert value(storage, "authentication") == (
        "{ type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identityId }"
    )
    assert parameters_of_module("functionApp")["packageContainerUrl"] == "storage.outputs.packageContainerUrl"
    url = "${account.properties.primaryEndpoints.blob}${packages.name}"
    assert default(BY_NAME["storage"], "output", "packageContainerUrl") == url


def test_an_instance_takes_as_many_requests_as_host_json_lets_it() -> None:
    concurrency = int(default(FUNCTION_APP, "variable", "httpConcurrency"))
    assert concurrency == host_json()["extensions"]["http"]["maxConcurrentRequests"]
    triggers = value(CONFIGURATION, "scaleAndConcurrency", "triggers")
    assert triggers == "{ http: { perInstanceConcurrency: httpConcurrency } }"


def test_the_app_scales_as_its_parameters_say() -> None:
    scale = member(CONFIGURATION, "scaleAndConcurrency")
    for name in ("alwaysReadyInstances", "maximumInstanceCount", "instanceMemoryMB"):
        assert parameters_of_module("functionApp")[name] == name
    assert value(scale, "instanceMemoryMB") == "instanceMemoryMB"
    assert value(scale, "maximumInstanceCount") == "maximumInstanceCount"
    # "durable" is the group of orchestrators and activities, "http" that of the routes
    # (MicrosoftDocs/azure-docs: articles/azure-functions/flex-consumption-plan.md, "Per-function scaling").
    ready = "alwaysReadyInstances > 0 ? [{ name: 'durable', instanceCount: alwaysReadyInstances }] : []"
    assert value(scale, "alwaysReady") == ready


def test_the_documentation_says_how_many_calls_that_is_for_the_partner() -> None:
    page = (PROJECT / "docs" / "configuration.md").read_text()
    section = page.partition("### Concurrency and the partner's limits")[2]
    most, ready = (int(default(MAIN, "parameter", name)) for name in ("maximumInstanceCount", "alwaysReadyInstances"))
    connections = 100
    assert f"`BUSINESS_API_MAX_CONNECTIONS` ({connections})" in section
    assert f"`maximumInstanceCount` of the deployment ({most})" in section
    # The number is one for each group, without the instances that are always ready
    # (MicrosoftDocs/azure-docs: articles/azure-functions/event-driven-scaling.md, "Limit scale-out", of 08/03/2026).
    calls = f"{(most + ready) * connections:,} calls by deliveries as deployed, and {most * connections:,} by look-ups"
    assert calls in " ".join(section.split())


def test_the_app_starts_when_its_roles_are_there() -> None:
    assert value(MAIN.declarations("module")["functionApp"].node, "dependsOn") == "[roles]"


def test_a_private_app_reaches_out_through_a_subnet_that_is_delegated_to_its_platform() -> None:
    subnet = value(APP, "properties", "virtualNetworkSubnetId")
    assert subnet == "empty(subnetId) ? null : subnetId"
    assert parameters_of_module("functionApp")["subnetId"] == "vnetEnabled ? network!.outputs.appSubnetId : ''"
    assert default(BY_NAME["network"], "output", "appSubnetId") == "${network.id}/subnets/app"
    network = text(resource("network", "network"))
    app = network[network.index("name: 'app'") :]
    # MicrosoftDocs/azure-docs: articles/azure-functions/functions-networking-options.md, "Virtual network integration":
    # the delegation, and that no name of a subnet may have an underscore.
    assert "serviceName: 'Microsoft.App/environments'" in app
    assert [name for name in re.findall(r"name: '([^']+)'", network) if "_" in name] == []
    # A deployment does not register the delegation's resource provider, since it makes nothing of it.
    assert "az provider register --namespace Microsoft.App" in (PROJECT / "infra" / "README.md").read_text()


def test_the_scheduler_has_the_task_hub_of_host_json() -> None:
    assert default(SCHEDULER, "variable", "taskHubName") == host_json()["extensions"]["durableTask"]["hubName"]
    assert value(resource("scheduler", "taskHub"), "name") == "taskHubName"


def test_the_app_connects_to_the_scheduler_as_its_identity() -> None:
    # learn.microsoft.com/azure/azure-functions/durable/durable-task-scheduler/durable-task-scheduler-identity, and in
    # Azure-Samples/Durable-Task-Scheduler, samples/durable-functions/python/pdf-summarizer/: infra/app/.
    assert default(SCHEDULER, "output", "connectionString") == (
        "Endpoint=${scheduler.properties.endpoint};Authentication=ManagedIdentity;ClientID=${clientId}"
    )
    assert parameters_of_module("scheduler")["clientId"] == "identity.outputs.clientId"
    # An empty list would refuse everybody.
    assert value(resource("scheduler", "scheduler"), "properties", "ipAllowlist") == "['0.0.0.0/0']"
