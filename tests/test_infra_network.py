"""What is private is found at its private address: endpoints, the zones of their names, and subnets that have room."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

from tests.bicep_template import member, members, nodes, text
from tests.infra_files import BY_NAME, default, parameters_of_module, resource, value

NETWORK = resource("network", "network")
# learn.microsoft.com/azure/private-link/private-endpoint-dns, in Azure's public cloud: the zone of each group.
ZONES = {
    "blob": "privatelink.blob.core.windows.net",
    "queue": "privatelink.queue.core.windows.net",
    "table": "privatelink.table.core.windows.net",
    "vault": "privatelink.vaultcore.azure.net",
}
RESOURCES = {"blob": "account.id", "queue": "account.id", "table": "account.id", "vault": "vault.id"}
# What Bicep's environment() says there.
PUBLIC_CLOUD = {
    "${environment().suffixes.storage}": "core.windows.net",
    "${replace(environment().suffixes.keyvaultDns, '.vault.', '.vaultcore.')}": ".vaultcore.azure.net",
}


def endpoints() -> list[dict[str, str]]:
    array = BY_NAME["network"].declarations("variable")["endpoints"].node
    found = [node for node in nodes(array) if node.type == "object"]
    return [{name: text(each) for name, each in members(node).items()} for node in found]


def subnets() -> dict[str, IPv4Network]:
    array = member(NETWORK, "properties", "subnets")
    found = [node for node in array.named_children if node.type == "object"]
    return {value(node, "name"): IPv4Network(value(node, "properties", "addressPrefix")) for node in found}


def test_a_private_app_reaches_all_that_it_uses_by_the_zone_of_its_kind() -> None:
    found: dict[str, str] = {}
    for endpoint in endpoints():
        zone = endpoint["zone"]
        for expression, suffix in PUBLIC_CLOUD.items():
            zone = zone.replace(expression, suffix)
        found[endpoint["groupId"]] = zone
        assert endpoint["resourceId"] == RESOURCES[endpoint["groupId"]]
    assert found == ZONES


def test_every_endpoint_has_its_connection_and_its_zone_which_the_network_sees() -> None:
    endpoint = resource("network", "privateEndpoints")
    assert value(endpoint, "properties", "subnet") == "{ id: '${network.id}/subnets/private-endpoints' }"
    connection = "{ privateLinkServiceId: endpoint.resourceId, groupIds: [endpoint.groupId] }"
    assert value(endpoint, "properties", "privateLinkServiceConnections", "properties") == connection
    assert value(resource("network", "zones"), "name") == "endpoint.zone"
    link = resource("network", "links")
    assert (value(link, "parent"), value(link, "properties", "virtualNetwork")) == ("zones[i]", "{ id: network.id }")
    group = resource("network", "zoneGroups")
    assert value(group, "parent") == "privateEndpoints[i]"
    configurations = "[ { name: endpoint.groupId, properties: { privateDnsZoneId: zones[i].id } } ]"
    assert value(group, "properties", "privateDnsZoneConfigs") == configurations


def test_the_subnets_lie_in_the_network_s_addresses_and_apart() -> None:
    spaces = [
        IPv4Network(space)
        for space in re.findall(r"'([^']+)'", value(NETWORK, "properties", "addressSpace", "addressPrefixes"))
    ]
    found = subnets()
    assert set(found) == {"private-endpoints", "app"}
    assert [name for name, subnet in found.items() if not any(subnet.subnet_of(space) for space in spaces)] == []
    assert not found["app"].overlaps(found["private-endpoints"])
    # Azure keeps five addresses of each, and Flex Consumption wants a /27 at least.
    assert all(subnet.prefixlen <= 27 for subnet in found.values())


def test_the_network_is_that_of_the_storage_account_and_the_vault() -> None:
    given = parameters_of_module("network")
    assert (given["storageAccountName"], given["vaultName"]) == ("storage.outputs.name", "vault.outputs.name")
    assert default(BY_NAME["network"], "output", "appSubnetId") == "${network.id}/subnets/app"
