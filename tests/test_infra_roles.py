"""Each role goes to whom it is for, on one resource; the documentation and GitHub's condition have the same list."""

from __future__ import annotations

import re

from tests.bicep_template import member, text
from tests.infra_files import BY_NAME, INFRA, TEMPLATES, default, parameters_of_module, value

# learn.microsoft.com/azure/role-based-access-control/built-in-roles: storage.md, monitor.md and security.md in
# MicrosoftDocs/azure-docs. The last is also in Azure-Samples/Durable-Task-Scheduler:
# samples/durable-functions/dotnet/HelloCities/infra/main.bicep.
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


def test_every_role_has_the_id_of_its_name() -> None:
    variables = BY_NAME["roles"].declarations("variable")
    guids = {name: text(each.node.named_children[-1]) for name, each in variables.items() if name != "storageRoles"}
    assert guids == BUILT_IN_ROLES


def test_who_deploys_from_github_may_give_these_roles_away_and_no_other() -> None:
    condition = " ".join((INFRA / "delegation-condition.txt").read_text().split())
    # learn.microsoft.com/azure/role-based-access-control/delegate-role-assignments-examples
    clause = (
        r"\( \( !\(ActionMatches\{'Microsoft\.Authorization/roleAssignments/(write|delete)'\}\) \) OR "
        r"\( @(Request|Resource)\[Microsoft\.Authorization/roleAssignments:RoleDefinitionId\] "
        r"ForAnyOfAnyValues:GuidEquals \{([0-9a-f, -]+)\} \) \)"
    )
    found = re.fullmatch(f"{clause} AND {clause}", condition)
    assert found is not None
    assert [found[1], found[2], found[4], found[5]] == ["write", "Request", "delete", "Resource"]
    assert [sorted(found[i].split(", ")) for i in (3, 6)] == [sorted(BUILT_IN_ROLES.values())] * 2


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
