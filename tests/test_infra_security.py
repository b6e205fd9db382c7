"""In Azure nothing takes a key or a password, each role goes to whom it is for, and secrets stay in the vault."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.bicep_template import Template, member, text
from tests.infra_files import (
    BY_NAME,
    INFRA,
    MAIN,
    TEMPLATES,
    default,
    each_template,
    parameters_of_module,
    resource,
    value,
)

if TYPE_CHECKING:
    from tree_sitter import Node

# learn.microsoft.com/azure/role-based-access-control/built-in-roles
BUILT_IN_ROLES = {
    "storageBlobDataOwner": "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
    "storageQueueDataContributor": "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
    "storageTableDataContributor": "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3",
    "monitoringMetricsPublisher": "3913510d-42f4-4e42-8a64-420c390055eb",
    "keyVaultSecretsUser": "4633458b-17de-408a-b874-0445c86b69e6",
    "keyVaultSecretsOfficer": "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
    "durableTaskDataContributor": "0ad04412-c4d5-4796-b79c-f76d14c8d402",
}
# Each assignment: on what, to whom, as what kind of principal, which role.
APP, DEPLOYER = "appPrincipalId", "deployerPrincipalId"
ASSIGNMENTS = {
    "appOnStorage": ("account", APP, "ServicePrincipal", "role"),
    "appOnInsights": ("insights", APP, "ServicePrincipal", "monitoringMetricsPublisher"),
    "appOnVault": ("vault", APP, "ServicePrincipal", "keyVaultSecretsUser"),
    "appOnScheduler": ("scheduler", APP, "ServicePrincipal", "durableTaskDataContributor"),
    "deployerOnVault": ("vault", DEPLOYER, None, "keyVaultSecretsOfficer"),
}
SECRETS = {
    "clientSecret": ("businessApiClientSecret", "business-api-client-secret"),
    "storeUrl": ("tokenStoreUrl", "token-store-url"),
    "storeKey": ("tokenStoreKey", "token-store-key"),
}


def secrets_of(template: Template) -> dict[str, Node]:
    parameters = template.declarations("parameter").items()
    return {name: each.node for name, each in parameters if "@secure()" in each.decorators}


def test_every_role_has_the_id_of_its_name() -> None:
    variables = BY_NAME["roles"].declarations("variable")
    guids = {name: text(each.node.named_children[-1]) for name, each in variables.items() if name != "storageRoles"}
    assert guids == BUILT_IN_ROLES


def test_no_role_id_stands_outside_the_roles_template() -> None:
    guid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    assert [each.path.name for each in TEMPLATES if guid.search(each.text)] == ["roles.bicep"]


def test_every_role_is_on_one_resource_and_goes_to_the_one_that_needs_it() -> None:
    found: dict[str, tuple[str, str, str | None, str]] = {}
    for name, each in BY_NAME["roles"].declarations("resource").items():
        if not each.of.startswith("Microsoft.Authorization/roleAssignments@"):
            continue
        properties = member(each.node, "properties")
        kind = value(properties, "principalType") if "principalType" in text(properties) else None
        role = re.fullmatch(
            r"subscriptionResourceId\('Microsoft\.Authorization/roleDefinitions', (\w+)\)",
            value(properties, "roleDefinitionId"),
        )
        assert role is not None, name
        scope, principal = value(each.node, "scope"), value(properties, "principalId")
        # The name must differ where any of these does, or one assignment would take the place of another.
        assert value(each.node, "name") == f"guid({scope}.id, {principal}, {role[1]})"
        found[name] = (scope, principal, kind, role[1])
    assert found == ASSIGNMENTS


def test_the_documentation_lists_every_assignment_and_no_other() -> None:
    section = (INFRA / "README.md").read_text().partition("## Who may do what")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| (app|deployer) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    names = {"account": "storage account", "insights": "Application Insights"}
    storage = re.findall(r"\w+", default(BY_NAME["roles"], "variable", "storageRoles"))
    expected = [
        ("app" if principal == APP else "deployer", each, names.get(scope, scope.replace("vault", "key vault")))
        for scope, principal, _, role in ASSIGNMENTS.values()
        for each in (storage if role == "role" else [role])
    ]
    camel_case = [(who, role[0].lower() + role[1:].replace(" ", ""), where) for who, role, where in listed]
    assert sorted(camel_case) == sorted(expected)


def test_the_app_is_its_identity_and_the_deployer_is_who_deploys() -> None:
    given = parameters_of_module("roles")
    assert (given[APP], given[DEPLOYER]) == ("identity.outputs.principalId", "principalId")
    assert default(BY_NAME["identity"], "output", "principalId") == "identity.properties.principalId"


def test_the_app_has_the_storage_roles_that_durable_needs() -> None:
    assert re.findall(r"\w+", default(BY_NAME["roles"], "variable", "storageRoles")) == [
        "storageBlobDataOwner",
        "storageQueueDataContributor",
        "storageTableDataContributor",
    ]


def test_nothing_accepts_a_shared_key_or_plain_http() -> None:
    account = resource("storage", "account")
    assert value(account, "properties", "allowSharedKeyAccess") == "false"
    assert value(account, "properties", "allowBlobPublicAccess") == "false"
    assert value(account, "properties", "supportsHttpsTrafficOnly") == "true"
    assert value(account, "properties", "minimumTlsVersion") == "TLS1_2"
    assert value(resource("key-vault", "vault"), "properties", "enableRbacAuthorization") == "true"
    assert value(resource("monitoring", "insights"), "properties", "DisableLocalAuth") == "true"
    # Without it, the workspace's own keys write and read what Application Insights keeps there.
    assert value(resource("monitoring", "workspace"), "properties", "features") == "{ disableLocalAuth: true }"
    app = resource("function-app", "app")
    assert value(app, "properties", "httpsOnly") == "true"
    assert value(app, "properties", "siteConfig", "minTlsVersion") == "1.2"


def test_a_vault_that_was_deleted_can_be_had_again_and_purged_only_where_that_is_wanted() -> None:
    vault = resource("key-vault", "vault")
    assert value(vault, "properties", "enableSoftDelete") == "true"
    # Azure refuses "false" once it was "true", and takes nothing for an answer.
    assert value(vault, "properties", "enablePurgeProtection") == "isPurgeProtected ? true : null"
    assert parameters_of_module("vault")["isPurgeProtected"] == "purgeProtection"
    days = value(vault, "properties", "softDeleteRetentionInDays")
    assert f"{days} days" in MAIN.declarations("parameter")["purgeProtection"].decorators


def test_the_vault_s_audit_log_goes_to_the_workspace() -> None:
    audit = resource("key-vault", "audit")
    assert value(audit, "scope") == "vault"
    assert value(audit, "properties", "workspaceId") == "workspace.id"
    assert value(audit, "properties", "logs") == "[ { category: 'AuditEvent', enabled: true } ]"
    assert parameters_of_module("vault")["workspaceName"] == "monitoring.outputs.workspaceName"


def test_deployments_take_no_user_name_and_password() -> None:
    policies = resource("function-app", "noBasicAuth")
    assert value(policies, "properties", "allow") == "false"
    assert "for endpoint in ['scm', 'ftp']" in text(policies)


def test_what_is_private_refuses_the_public_network() -> None:
    for node in (resource("storage", "account"), resource("key-vault", "vault")):
        assert value(node, "properties", "publicNetworkAccess") == "isPrivate ? 'Disabled' : 'Enabled'"
        assert value(node, "properties", "networkAcls", "defaultAction") == "isPrivate ? 'Deny' : 'Allow'"
    assert {name: parameters_of_module(name)["isPrivate"] for name in ("storage", "vault")} == {
        "storage": "vnetEnabled",
        "vault": "vnetEnabled",
    }


@each_template
def test_a_secret_stays_out_of_outputs_and_has_no_default_value(template: Template) -> None:
    secrets = secrets_of(template)
    for output in template.declarations("output").values():
        shown = text(output.node.named_children[-1])
        assert not [name for name in secrets if re.search(rf"\b{name}\b", shown)], output.name
    parameters = template.declarations("parameter")
    assert {default(template, "parameter", name) for name in secrets if parameters[name].has_default} <= {""}


def test_every_secret_setting_is_a_secure_parameter_of_main_and_of_the_vault_alone() -> None:
    wanted = {parameter for parameter, _ in SECRETS.values()}
    assert {each.path.stem: set(secrets_of(each)) for each in TEMPLATES if secrets_of(each)} == {
        "main": wanted,
        "key-vault": wanted,
    }
    assert {parameter: parameters_of_module("vault")[parameter] for parameter in wanted} == {
        parameter: parameter for parameter in wanted
    }


def test_a_setting_refers_to_the_secret_that_the_vault_keeps_for_it() -> None:
    vault = BY_NAME["key-vault"]
    # learn.microsoft.com/azure/app-service/app-service-key-vault-references
    reference = "@Microsoft.KeyVault(SecretUri=${vault.properties.vaultUri}secrets/"
    assert default(vault, "variable", "reference") == reference
    for name, (parameter, stored) in SECRETS.items():
        node = resource("key-vault", name)
        assert value(node, "name") == stored
        assert value(node, "properties", "value") == parameter
        assert f"if (!contains(notToStore, {parameter}))" in text(node)
        output = default(vault, "output", f"{parameter}Reference")
        assert re.fullmatch(rf"\w+ \? '\$\{{reference\}}\$\{{{name}\.name\}}\)' : ''", output), output
    assert re.findall(r"'([^']*)'", default(vault, "variable", "notToStore")) == ["", "key-vault"]
