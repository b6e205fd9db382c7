"""The Bicep templates hold together, and use nothing that Azure or Bicep does not have.

There is no compiler here, which knows every resource type and function: instead, each that is used stands in a list.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.azure_properties import COMMON, PROPERTIES
from tests.bicep_template import PARSER, Template, member, members, nodes, property_paths, text
from tests.infra_files import INFRA, MAIN, TEMPLATES, each_template

if TYPE_CHECKING:
    from pathlib import Path

# learn.microsoft.com/azure/templates, and Azure/bicep-types-az: generated/.
RESOURCE_TYPES = {
    "Microsoft.Authorization/roleAssignments@2022-04-01",
    "Microsoft.DurableTask/schedulers@2025-11-01",
    "Microsoft.DurableTask/schedulers/taskHubs@2025-11-01",
    "Microsoft.Insights/actionGroups@2023-01-01",
    "Microsoft.Insights/components@2020-02-02",
    "Microsoft.Insights/diagnosticSettings@2021-05-01-preview",
    "Microsoft.Insights/scheduledQueryRules@2022-06-15",
    "Microsoft.KeyVault/vaults@2023-07-01",
    "Microsoft.KeyVault/vaults/secrets@2023-07-01",
    "Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31",
    "Microsoft.Network/privateDnsZones@2020-06-01",
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01",
    "Microsoft.Network/privateEndpoints@2024-01-01",
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-01-01",
    "Microsoft.Network/virtualNetworks@2024-01-01",
    "Microsoft.OperationalInsights/workspaces@2023-09-01",
    "Microsoft.OperationalInsights/workspaces/savedSearches@2020-08-01",
    "Microsoft.Resources/resourceGroups@2024-03-01",
    "Microsoft.Storage/storageAccounts@2023-05-01",
    "Microsoft.Storage/storageAccounts/blobServices@2023-05-01",
    "Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01",
    "Microsoft.Web/serverfarms@2024-04-01",
    "Microsoft.Web/sites@2024-04-01",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01",
    "Microsoft.Web/sites/config@2024-04-01",
}
# Those whose properties depend on their name (Azure/bicep-types-az: generated/web/microsoft.web/2024-04-01/types.md).
CHOSEN_BY_NAME = {
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {"ftp", "scm"},
    "Microsoft.Web/sites/config": {"appsettings"},
}
# learn.microsoft.com/azure/azure-resource-manager/bicep/bicep-functions, and the decorators of parameters.
FUNCTIONS = {
    *("contains", "empty", "environment", "filter", "guid", "items", "loadTextContent", "replace", "subscription"),
    *("subscriptionResourceId", "tenant", "toLower", "toObject", "union", "uniqueString"),
    *("allowed", "description", "maxLength", "maxValue", "metadata", "minLength", "minValue", "secure"),
}
# Those that are on unless told otherwise, and those about locations, which are not (Azure/bicep, v0.46:
# src/Bicep.Core/Analyzers/Linter/Rules). Bicep says nothing of a name that it does not know.
LINTER_RULES = {
    *("adminusername-should-not-be-literal", "artifacts-parameters", "decompiler-cleanup", "max-asserts"),
    *("max-outputs", "max-params", "max-resources", "max-variables", "nested-deployment-template-scoping"),
    *("no-conflicting-metadata", "no-deployments-resources", "no-explicit-any", "no-hardcoded-env-urls"),
    *("no-unnecessary-dependson", "no-unused-existing-resources", "no-unused-imports", "no-unused-params"),
    *("no-unused-types", "no-unused-vars", "outputs-should-not-contain-secrets", "prefer-interpolation"),
    *("prefer-unquoted-property-names", "protect-commandtoexecute-secrets", "secure-parameter-default"),
    *("secure-params-in-nested-deploy", "secure-params-in-parameters-file", "secure-secrets-in-params"),
    *("simplify-interpolation", "simplify-json-null", "stacks-extensibility-compat", "use-parent-property"),
    *("use-recent-az-powershell-version", "use-recognized-resource-type", "use-resource-symbol-reference"),
    *("use-safe-access", "use-secure-value-for-secure-inputs", "use-stable-resource-identifiers"),
    *("use-stable-vm-image", "explicit-values-for-loc-params", "no-hardcoded-location", "no-loc-expr-outside-params"),
}
# What azd keeps of a deployment, and anybody who may read deployments sees.
OUTPUTS = {
    "AZURE_LOCATION": "location",
    "AZURE_TENANT_ID": "tenant().tenantId",
    "AZURE_RESOURCE_GROUP": "group.name",
    "AZURE_FUNCTION_APP_NAME": "functionApp.outputs.name",
    "AZURE_FUNCTION_APP_URL": "functionApp.outputs.url",
    "AZURE_KEY_VAULT_NAME": "vault.outputs.name",
    "AZURE_LOG_ANALYTICS_WORKSPACE_NAME": "monitoring.outputs.workspaceName",
}


def functions(template: Template) -> set[str]:
    """Give the functions that a template calls, those of modules and namespaces with their full names."""
    return {text(node.named_children[0]) for node in nodes(template.root) if node.type == "call_expression"}


@each_template
def test_a_template_is_bicep(template: Template) -> None:
    assert template.syntax_errors() == []


@each_template
def test_every_name_that_a_template_uses_is_declared_in_it(template: Template) -> None:
    assert template.used_names() - template.declared_names() == set()


@each_template
def test_every_parameter_and_variable_is_used(template: Template) -> None:
    declared = set(template.declarations("parameter")) | set(template.declarations("variable"))
    assert declared - template.used_names() == set()


@each_template
def test_every_parameter_is_described(template: Template) -> None:
    parameters = template.declarations("parameter").values()
    assert [each.name for each in parameters if "@description(" not in each.decorators] == []


@each_template
def test_every_function_is_one_of_bicep(template: Template) -> None:
    assert functions(template) - FUNCTIONS == set()


def test_every_resource_has_a_type_and_a_version_that_azure_has() -> None:
    used = {resource.of for template in TEMPLATES for resource in template.declarations("resource").values()}
    assert used == RESOURCE_TYPES


def test_no_function_is_listed_that_nobody_calls() -> None:
    assert {name for template in TEMPLATES for name in functions(template)} == FUNCTIONS


def test_every_module_is_given_the_parameters_that_it_takes() -> None:
    for module in MAIN.declarations("module").values():
        target = Template.read(INFRA / module.of)
        parameters = target.declarations("parameter")
        given = set(members(member(module.node, "params")))
        required = {name for name, parameter in parameters.items() if not parameter.has_default}
        assert given <= set(parameters), module.name
        assert required <= given, module.name


def test_every_template_is_a_module_of_main() -> None:
    used = {(INFRA / module.of).resolve() for module in MAIN.declarations("module").values()}
    assert used == {template.path.resolve() for template in TEMPLATES} - {MAIN.path.resolve()}


def test_the_outputs_of_modules_are_those_that_main_uses() -> None:
    declared = {
        (module.name, output)
        for module in MAIN.declarations("module").values()
        for output in Template.read(INFRA / module.of).declarations("output")
    }
    assert MAIN.used_outputs() == declared


def test_the_deployment_gives_away_names_and_addresses_only() -> None:
    outputs = MAIN.declarations("output")
    assert {name: text(each.node.named_children[-1]) for name, each in outputs.items()} == OUTPUTS


def test_the_reader_of_templates_sees_errors_and_unknown_names(tmp_path: Path) -> None:
    broken = tmp_path / "broken.bicep"
    broken.write_text("param a string\nresource x 'T@1' = {\n  name: missing\n")
    assert Template.read(broken).syntax_errors() != []
    unknown = tmp_path / "unknown.bicep"
    unknown.write_text("var a = [for (x, i) in b: { c: x.d, e: '${f}${i}', g: map(h, y => y.z) }]\n")
    assert Template.read(unknown).used_names() == {"b", "f", "h"}
    assert functions(Template.read(unknown)) == {"map"}


def test_the_reader_of_templates_takes_what_bicep_allows() -> None:
    source = b"var a = empty(b) ? null : c.?d ?? ''\n"
    assert not PARSER.parse(source).root_node.has_error


@each_template
def test_no_template_reads_keys(template: Template) -> None:
    assert not re.search(r"\blist(Keys|Secrets|ConnectionStrings|AccountSas|ServiceSas)?\w*\(", template.text)


def test_every_property_is_one_that_the_resource_has_and_every_one_that_is_listed_is_set() -> None:
    used: dict[str, set[str]] = {name.partition("@")[0]: set() for name in RESOURCE_TYPES}
    for template in TEMPLATES:
        for each in template.declarations("resource").values():
            paths = set(property_paths(each.node.named_children[-1]))
            used[each.of.partition("@")[0]] |= {path for path in paths if path.partition(".")[0] not in COMMON}
    assert used == PROPERTIES


def test_a_name_that_chooses_the_properties_is_a_literal() -> None:
    # A loop's variable too gets the warning BCP225 (Azure/bicep: src/Bicep.Core/TypeSystem/TypeValidator.cs).
    found: dict[str, set[str]] = {name: set() for name in CHOSEN_BY_NAME}
    for template in TEMPLATES:
        for each in template.declarations("resource").values():
            if (of := each.of.partition("@")[0]) in CHOSEN_BY_NAME:
                name = member(each.node, "name")
                assert name.type == "string", each.name
                found[of].add(text(name))
    assert found == CHOSEN_BY_NAME


def test_the_reader_of_templates_sees_properties_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "some.bicep"
    path.write_text(
        "resource x 'T@1' = [for a in b: if (c) {\n"
        "  name: a\n"
        "  d: e ? { f: [{ g: 1 }, { 'h-i': {} }] } : { j: null }\n"
        "  k: { '${a}': {} }\n"
        "}]\n"
    )
    body = Template.read(path).declarations("resource")["x"].node.named_children[-1]
    assert set(property_paths(body)) == {"name", "d.f.g", "d.f.h-i", "d.j", "k.*"}


def test_what_the_linter_finds_is_an_error() -> None:
    configuration = json.loads((INFRA / "bicepconfig.json").read_text())
    core = configuration["analyzers"]["core"]
    assert core["enabled"] is True
    assert {rule["level"] for rule in core["rules"].values()} == {"error"}
    assert set(core["rules"]) == LINTER_RULES
