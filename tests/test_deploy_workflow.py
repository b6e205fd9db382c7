"""The deployment is asked for by a person, from main alone, and what may change Azure runs nothing but azd."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.infra_files import MAIN
from tests.workflow_files import DEPLOY, PROJECT, jobs, read, run_of, step

JOBS = jobs(DEPLOY)
PACKAGE, DEPLOYMENT = JOBS["package"], JOBS["deploy"]
AZURE_YAML: dict[str, Any] = YAML(typ="safe").load(PROJECT / "azure.yaml")
LOGIN = (
    'azd auth login --client-id "$AZURE_CLIENT_ID" --tenant-id "$AZURE_TENANT_ID"'
    " --federated-credential-provider github"
)
# The variables whose values are secrets: a variable may only say that the vault has them.
SECRETS = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    for name, each in MAIN.declarations("parameter").items()
    if "@secure()" in each.decorators
}


def expression(name: str) -> str:
    """Give what a variable of the environment is to become: of a secret's, no more than that it is in the vault."""
    return f"${{{{ vars.{name} && 'key-vault' }}}}" if name in SECRETS else f"${{{{ vars.{name} }}}}"


def test_a_deployment_begins_when_a_person_asks_for_one_and_never_else() -> None:
    [(trigger, given)] = read(DEPLOY)["on"].items()
    assert trigger == "workflow_dispatch"
    assert {name: (each["type"], each["required"]) for name, each in given["inputs"].items()} == {
        "environment": ("environment", True)
    }


def test_one_deployment_of_an_environment_at_a_time_is_never_cut_short() -> None:
    assert read(DEPLOY)["concurrency"] == {"group": "deploy-${{ inputs.environment }}", "cancel-in-progress": False}


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_of_the_environment_that_was_chosen_and_of_main(name: str) -> None:
    # The environment's protection is what holds: who may deploy, and from which branch.
    assert JOBS[name]["environment"] == "${{ inputs.environment }}"
    assert JOBS[name]["if"] == "github.ref == 'refs/heads/main'"


def test_what_installs_packages_may_do_nothing_in_azure() -> None:
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        "package": {"contents": "read"},
        "deploy": {"contents": "read", "id-token": "write"},
    }
    assert DEPLOYMENT["needs"] == ["package"]
    assert [
        line for line in run_of(DEPLOYMENT) if re.search(r"\b(make|uv|pip|setup-uv|setup-python|npm)\b", line)
    ] == []


def test_the_package_is_tried_and_handed_over() -> None:
    refused, *rest = run_of(PACKAGE)
    assert refused.startswith("echo ")
    assert rest == [
        "exit 1",
        "actions/checkout",
        "astral-sh/setup-uv",
        "make test-package",
        "actions/upload-artifact",
    ]
    upload, download = step(PACKAGE, "actions/upload-artifact"), step(DEPLOYMENT, "actions/download-artifact")
    assert (upload["with"]["name"], upload["with"]["path"]) == ("app", "dist/app.zip")
    assert upload["with"]["if-no-files-found"] == "error"
    assert download["with"] == {"name": "app", "path": "dist"}


def test_the_very_package_is_deployed_to_what_was_provisioned_and_asked_whether_it_is_well() -> None:
    (service,) = AZURE_YAML["services"]
    assert run_of(DEPLOYMENT) == [
        "actions/checkout",
        "actions/download-artifact",
        "Azure/setup-azd",
        LOGIN,
        "azd provision --no-prompt",
        f"azd deploy {service} --from-package dist/app.zip --no-prompt",
        "url=$(azd env get-value AZURE_FUNCTION_APP_URL)",
        'curl --fail --silent --show-error --retry 10 --retry-all-errors --retry-delay 15 "$url/api/health"',
    ]


def test_a_secret_in_a_variable_ends_the_deployment_before_anything_else() -> None:
    first = PACKAGE["steps"][0]
    clauses = [f"(vars.{name} || 'key-vault') != 'key-vault'" for name in sorted(SECRETS)]
    assert sorted(re.split(r" \|\| (?=\()", first["if"])) == clauses
    assert first["run"].splitlines()[-1] == "exit 1"


def test_every_parameter_of_the_template_is_passed_on_and_no_secret_is() -> None:
    parameters = (PROJECT / "infra" / "main.parameters.json").read_text()
    wanted = set(re.findall(r"\$\{(\w+)", parameters)) - {"AZURE_PRINCIPAL_ID"}
    login = {"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_SUBSCRIPTION_ID"}
    given: dict[str, str] = dict(DEPLOYMENT["env"])
    assert given.pop("PACKAGE_IS_BUILT") == "true"
    assert given == {name: expression(name) for name in wanted | login}


def test_the_package_is_built_for_the_environment() -> None:
    names = {"DURABLE_BACKEND", "WORKER_TELEMETRY", "TOKEN_STORE_URL"}
    assert PACKAGE["env"] == {name: expression(name) for name in names}
    sources = "".join(path.read_text() for path in sorted((PROJECT / "deployment").glob("*.py")))
    assert set(re.findall(r'environ\.get\("(\w+)"', sources)) == names


def test_azd_has_the_version_that_the_project_asks_for() -> None:
    version = step(DEPLOYMENT, "Azure/setup-azd")["with"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert AZURE_YAML["requiredVersions"] == {"azd": f">= {version}"}
