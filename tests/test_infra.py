"""The Bicep templates, their parameters, their queries and azure.yaml fit each other and the app."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.bicep_template import PARSER, Template, member, members, nodes, text
from tests.setting_names import setting_names

PROJECT = Path(__file__).parent.parent
INFRA = PROJECT / "infra"
TEMPLATES = [Template.read(path) for path in sorted(INFRA.rglob("*.bicep"))]
BY_NAME = {template.path.stem: template for template in TEMPLATES}
MAIN = BY_NAME["main"]
QUERIES = sorted((INFRA / "queries").glob("*.kql"))
each_template = pytest.mark.parametrize(
    "template", TEMPLATES, ids=lambda template: str(template.path.relative_to(INFRA))
)
each_query = pytest.mark.parametrize("query", QUERIES, ids=lambda query: str(query.stem))

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
# What the template sets for the platform, not for `Settings`.
PLATFORM_SETTINGS = {
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__blobServiceUri",
    "AzureWebJobsStorage__queueServiceUri",
    "AzureWebJobsStorage__tableServiceUri",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY",
    "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
}


def parameters_file() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((INFRA / "main.parameters.json").read_text())
    return {name: parameter["value"] for name, parameter in content["parameters"].items()}


def host_json() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PROJECT / "host.json").read_text())
    return content


def settings_in_main() -> set[str]:
    union = member(MAIN.declarations("module")["functionApp"].node, "params", "appSettings")
    return set(members(union))


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


def test_the_reader_of_templates_sees_errors_and_unknown_names(tmp_path: Path) -> None:
    broken = tmp_path / "broken.bicep"
    broken.write_text("param a string\nresource x 'T@1' = {\n  name: missing\n")
    assert Template.read(broken).syntax_errors() != []
    unknown = tmp_path / "unknown.bicep"
    unknown.write_text("var a = [for (x, i) in b: { c: x.d, e: '${f}${i}', g: map(h, y => y.z) }]\n")
    assert Template.read(unknown).used_names() == {"b", "f", "h"}


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


def test_one_resource_type_has_one_api_version() -> None:
    versions: dict[str, set[str]] = {}
    for template in TEMPLATES:
        for resource in template.declarations("resource").values():
            kind, _, version = resource.of.partition("@")
            assert re.fullmatch(r"\d{4}-\d\d-\d\d", version), resource.of
            versions.setdefault(kind.split("/subnets")[0], set()).add(version)
    assert {kind: found for kind, found in versions.items() if len(found) > 1} == {}


def test_every_app_setting_can_be_set() -> None:
    settings = setting_names()
    assert "BUSINESS_API_URL" in settings
    assert set(parameters_file()["appSettings"]) | settings_in_main() == settings | PLATFORM_SETTINGS


def test_no_setting_comes_from_two_places_but_the_managed_identity() -> None:
    assert set(parameters_file()["appSettings"]) & settings_in_main() == {"BUSINESS_API_MANAGED_IDENTITY"}


def test_the_parameters_file_names_parameters_and_takes_each_from_the_variable_of_its_name() -> None:
    values = parameters_file()
    parameters = MAIN.declarations("parameter")
    assert set(values) == set(parameters)
    azd = {"environmentName": "AZURE_ENV_NAME", "location": "AZURE_LOCATION", "principalId": "AZURE_PRINCIPAL_ID"}
    for name, value in values.items():
        if name != "appSettings":
            variable = azd.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
            assert re.fullmatch(rf"\$\{{{variable}(=[\w]+)?\}}", value), name
    assert values["appSettings"] == {name: f"${{{name}}}" for name in values["appSettings"]}


def test_defaults_of_the_parameters_file_are_those_of_the_template() -> None:
    for name, value in parameters_file().items():
        if isinstance(value, str) and "=" in value:
            default = MAIN.declarations("parameter")[name].node.named_children[-1]
            assert value.partition("=")[2].rstrip("}") == text(default), name


def test_every_role_has_the_id_of_its_name() -> None:
    variables = BY_NAME["roles"].declarations("variable")
    guids = {name: text(each.node.named_children[-1]) for name, each in variables.items() if name != "storageRoles"}
    assert guids == BUILT_IN_ROLES


def test_no_role_id_stands_outside_the_roles_template() -> None:
    guid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    assert [each.path.name for each in TEMPLATES if guid.search(each.text)] == ["roles.bicep"]


def test_every_role_is_on_one_resource() -> None:
    roles = BY_NAME["roles"]
    resources = roles.declarations("resource")
    existing = {name for name, each in resources.items() if " existing " in text(each.node).partition("{")[0]}
    assignments = [each for name, each in resources.items() if name not in existing]
    assert {each.of.partition("@")[0] for each in assignments} == {"Microsoft.Authorization/roleAssignments"}
    assert {text(member(each.node, "scope")) for each in assignments} == existing


def test_the_app_has_the_storage_roles_that_durable_needs() -> None:
    roles = text(BY_NAME["roles"].declarations("variable")["storageRoles"].node.named_children[-1])
    assert re.findall(r"\w+", roles) == [
        "storageBlobDataOwner",
        "storageQueueDataContributor",
        "storageTableDataContributor",
    ]


def test_nothing_accepts_a_shared_key_or_plain_http() -> None:
    account = BY_NAME["storage"].declarations("resource")["account"].node
    vault = BY_NAME["key-vault"].declarations("resource")["vault"].node
    insights = BY_NAME["monitoring"].declarations("resource")["insights"].node
    app = BY_NAME["function-app"].declarations("resource")["app"].node
    assert text(member(account, "properties", "allowSharedKeyAccess")) == "false"
    assert text(member(account, "properties", "allowBlobPublicAccess")) == "false"
    assert text(member(account, "properties", "supportsHttpsTrafficOnly")) == "true"
    assert text(member(account, "properties", "minimumTlsVersion")) == "TLS1_2"
    assert text(member(vault, "properties", "enableRbacAuthorization")) == "true"
    assert text(member(insights, "properties", "DisableLocalAuth")) == "true"
    assert text(member(app, "properties", "httpsOnly")) == "true"
    assert text(member(app, "properties", "siteConfig", "minTlsVersion")) == "1.2"
    policies = BY_NAME["function-app"].declarations("resource")["noBasicAuth"].node
    assert text(member(policies, "properties", "allow")) == "false"


@each_template
def test_no_template_reads_keys(template: Template) -> None:
    assert not re.search(r"\blist(Keys|Secrets|ConnectionStrings|AccountSas|ServiceSas)?\w*\(", template.text)


@each_template
def test_a_secret_stays_out_of_outputs_and_has_no_default_value(template: Template) -> None:
    secrets = {
        name: each for name, each in template.declarations("parameter").items() if "@secure()" in each.decorators
    }
    for output in template.declarations("output").values():
        value = text(output.node.named_children[-1])
        assert not [name for name in secrets if re.search(rf"\b{name}\b", value)], output.name
    assert {name: text(each.node.named_children[-1]) for name, each in secrets.items() if each.has_default} in (
        {},
        dict.fromkeys(secrets, ""),
    )


def test_every_secret_setting_is_a_secure_parameter() -> None:
    secure = {name for name, each in MAIN.declarations("parameter").items() if "@secure()" in each.decorators}
    assert secure == {"businessApiClientSecret", "tokenStoreUrl", "tokenStoreKey"}


def test_the_function_app_runs_the_python_that_the_project_is_tested_with() -> None:
    version = BY_NAME["function-app"].declarations("variable")["pythonVersion"].node.named_children[-1]
    assert text(version) == (PROJECT / ".python-version").read_text().strip()


def test_an_instance_takes_as_many_requests_as_host_json_lets_it() -> None:
    concurrency = BY_NAME["function-app"].declarations("variable")["httpConcurrency"].node.named_children[-1]
    assert int(text(concurrency)) == host_json()["extensions"]["http"]["maxConcurrentRequests"]


def test_the_always_ready_group_is_the_one_of_durable_functions() -> None:
    assert "alwaysReady: alwaysReadyInstances > 0 ? [{ name: 'durable'," in BY_NAME["function-app"].text


def test_the_scheduler_has_the_task_hub_of_host_json() -> None:
    hub = BY_NAME["scheduler"].declarations("variable")["taskHubName"].node.named_children[-1]
    assert text(hub) == host_json()["extensions"]["durableTask"]["hubName"]


def test_a_private_app_reaches_all_that_it_uses() -> None:
    endpoints = BY_NAME["network"].declarations("variable")["endpoints"].node
    groups = {
        text(each.named_children[-1])
        for each in nodes(endpoints)
        if each.type == "object_property" and text(each.named_children[0]) == "groupId"
    }
    assert groups == {"blob", "queue", "table", "vault"}


def test_all_queries_are_saved_in_the_workspace() -> None:
    saved = re.findall(r"loadTextContent\('\.\./queries/([\w-]+)\.kql'\)", BY_NAME["monitoring"].text)
    assert sorted(saved) == [query.stem for query in QUERIES]


def test_every_alert_rule_runs_a_query_that_is_there() -> None:
    rules = re.findall(r"loadTextContent\('([^']+)'\)", BY_NAME["alerts"].text)
    assert len(rules) >= 1
    assert [rule for rule in rules if not (INFRA / "app" / rule).is_file()] == []


@each_query
def test_a_query_says_what_it_shows_and_is_balanced(query: Path) -> None:
    content = query.read_text()
    assert content.startswith("// ")
    for pair in ("()", "[]"):
        assert content.count(pair[0]) == content.count(pair[1])
    assert content.count('"') % 2 == 0


@each_query
def test_a_query_asks_for_functions_and_spans_that_the_app_has(query: Path) -> None:
    app = (PROJECT / "function_app.py").read_text()
    source = app + "".join(path.read_text() for path in sorted((PROJECT / "shared").rglob("*.py")))
    for kind, prefix in re.findall(r'Name startswith "(?:create_)?(\w+):(\w+)"', query.read_text()):
        assert kind in {"orchestration", "activity"}
        assert re.search(rf'"{prefix}\w+"', source), f"no function's name begins with {prefix}"
    for span in re.findall(r'Name == "([^"]+)"', query.read_text()):
        assert f'"{span}"' in source


def azure_yaml() -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(PROJECT / "azure.yaml")
    return content


def test_azd_finds_the_function_app_of_its_service() -> None:
    (service,) = azure_yaml()["services"]
    assert f"{{ 'azd-service-name': '{service}' }}" in BY_NAME["function-app"].text


def test_azd_deploys_what_the_package_holds() -> None:
    service = azure_yaml()["services"]["relay"]
    assert service == {"project": "./dist/app", "language": "python", "host": "function"}
    hooks = azure_yaml()["hooks"]
    assert {name: hook["posix"]["run"] for name, hook in hooks.items()} == {
        "prepackage": "make package",
        "predeploy": "make package",
    }
    pinned = re.search(r"^pathspec==.*$", (PROJECT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert all(f" --with {pinned[0]} " in hook["windows"]["run"] for hook in hooks.values())


def test_the_reader_of_templates_takes_what_bicep_allows() -> None:
    source = b"var a = empty(b) ? null : c.?d ?? ''\n"
    assert not PARSER.parse(source).root_node.has_error
