"""In Azure nothing takes a key or a password, and secrets stay in the vault."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.bicep_template import Template, text
from tests.infra_files import (
    BY_NAME,
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

SECRETS = {
    "clientSecret": ("businessApiClientSecret", "business-api-client-secret"),
    "storeUrl": ("tokenStoreUrl", "token-store-url"),
    "storeKey": ("tokenStoreKey", "token-store-key"),
}


def secrets_of(template: Template) -> dict[str, Node]:
    parameters = template.declarations("parameter").items()
    return {name: each.node for name, each in parameters if "@secure()" in each.decorators}


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
    for name, endpoint in (("noBasicAuthOnScm", "scm"), ("noBasicAuthOnFtp", "ftp")):
        policy = resource("function-app", name)
        assert (value(policy, "parent"), value(policy, "name")) == ("app", endpoint)
        assert value(policy, "properties", "allow") == "false"


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
