"""Commands of Azure, GitHub and package managers that the documentation shows, and what is wrong with one.

None of them is here to be asked: each is listed with what it takes, from its documentation. What it names of this
project (outputs and secrets of the templates, parameters, variables) is compared with the project.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ruamel.yaml import YAML

from tests.bicep_template import member, text
from tests.infra_files import BY_NAME, MAIN

PROJECT = Path(__file__).parent.parent
# Each command with its options, "=" after those that take a value, and its arguments. A group of commands has none.
TAKES = {
    "apt-get install": "PACKAGE",
    "apt-get update": "",
    "az ad app create": "--display-name= --query= --output=",
    "az ad app federated-credential create": "--id= --parameters=",
    "az ad sp create": "--id=",
    "az bicep build": "--file= --stdout",
    "az functionapp config appsettings set": "--name= --resource-group= --settings=",
    "az functionapp function keys": "",
    "az functionapp keys set": "--name= --resource-group= --key-name= --key-type= --key-value=",
    "az functionapp keys list": "--name= --resource-group= --query= --output=",
    "az functionapp restart": "--name= --resource-group= --ids=",
    "az functionapp show": "--name= --resource-group= --query= --output=",
    "az keyvault secret set": "--vault-name= --name= --file= --output=",
    "az provider register": "--namespace= --wait",
    "az rest": "--method= --url=",
    "az role assignment create": "--assignee= --role= --scope= --condition-version= --condition=",
    "azd auth login": "",
    "azd deploy": "",
    "azd down": "--purge",
    "azd env get-value": "OUTPUT",
    "azd env new": "ENVIRONMENT",
    "azd env set": "PARAMETER VALUE",
    "azd provision": "--preview",
    "azd up": "",
    "azurite": "--silent --location= --blobPort= --skipApiVersionCheck",
    "brew install": "FORMULA",
    "brew tap": "TAP",
    "dpkg": "--install=",
    "func --version": "",
    "func host start": "",
    "func azure functionapp publish": "APP --python",
    "func settings decrypt": "",
    "func start": "--port=",
    "gh api": "ENDPOINT --jq=",
    "gh variable set": "--env= --body= VARIABLE",
    "npm install": "--global NPM_PACKAGE",
}
# What a command cannot do without. The Core Tools look for the language in local.settings.json, which no package has.
NEEDS = {"func azure functionapp publish": "--python"}
NAMES = {command.split()[0] for command in TAKES}
# What installs packages, by the one name that each may install.
PACKAGES = {
    "PACKAGE": {"azure-functions-core-tools-4"},
    "FORMULA": {"azure-functions-core-tools@4"},
    "TAP": {"azure/functions"},
    "NPM_PACKAGE": {"azurite"},
}


def problem_of_foreign(words: list[str]) -> str | None:
    """Say what is wrong with a command of `NAMES`, None where nothing is."""
    known = [command for command in TAKES if words[: len(command.split())] == command.split()]
    if not known:
        return f"{words[0]} is not known to have {' '.join(words[1:3])}"
    command = max(known, key=len)
    takes = TAKES[command].split()
    arguments: list[tuple[str, str]] = []
    kinds = [word for word in takes if not word.startswith("--")]
    rest = iter(words[len(command.split()) :])
    for word in rest:
        name, equals, value = word.partition("=")
        if word.startswith("-"):
            if f"{name}=" in takes:
                arguments.append((name, value if equals else next(rest, "")))
            elif name not in takes:
                return f"{command} is not known to have {name}"
        elif kinds:
            arguments.append((kinds.pop(0), word))
        else:
            return f"{command} takes no {word}"
    if NEEDS.get(command) not in [None, *words]:
        kinds.append(NEEDS[command])
    if kinds:
        return f"{command} lacks its {', '.join(kinds)}"
    return next((problem for kind, value in arguments if (problem := _problem_of_name(command, kind, value))), None)


def _problem_of_name(command: str, kind: str, value: str) -> str | None:
    names = names_of()
    allowed = names.get(f"{command} {kind}", names.get(kind, {value}))
    # A name in capitals is for the reader to replace.
    return None if value in allowed | {"NAME"} else f"{command}: there is no {value}"


@cache
def names_of() -> dict[str, set[str]]:
    """Give the names that there are in this project, by what takes them."""
    workflow = YAML(typ="safe").load(PROJECT / ".github" / "workflows" / "deploy.yml")
    parameters = (PROJECT / "infra" / "main.parameters.json").read_text(encoding="utf-8")
    resources = BY_NAME["key-vault"].declarations("resource").values()
    return PACKAGES | {
        "ENDPOINT": {"repos/{owner}/{repo}/actions/oidc/customization/sub"},
        "OUTPUT": set(MAIN.declarations("output")),
        "PARAMETER": set(re.findall(r"\$\{(\w+)", parameters)),
        "VARIABLE": set(workflow["jobs"]["deploy"]["env"]),
        "az keyvault secret set --name": {
            text(member(each.node, "name")) for each in resources if "/vaults/secrets@" in each.of
        },
    }
