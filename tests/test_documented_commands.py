"""The check of documented commands tells what exists from what does not."""

from __future__ import annotations

import pytest

from tests.documented_commands import problem_of


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("make nonsense", "make has no target nonsense"),
        ("make demo ARGS=--nope", "sandbox demo has no option --nope"),
        ('make package ARGS="--extra otlp --nope"', "deployment package has no option --nope"),
        ("make test ARGS=--nope", "pytest has no option --nope"),
        ("make test-chaos ARGS=--nope", "pytest has no option --nope"),
        ("make check ARGS=--nope", "make check takes no ARGS"),
        (".venv/bin/python -m nonsense", "there is no module nonsense"),
        (".venv/bin/python -m sandbox frobnicate", "sandbox has no command frobnicate"),
        (".venv/bin/python -m sandbox up --nope", "sandbox up has no option --nope"),
        (".venv/bin/python -m sandbox host extra", "sandbox host takes no extra"),
        (".venv/bin/python -m sandbox host --port 7071 extra", "sandbox host takes no extra"),
        (".venv/bin/python foo.py", "there is no foo.py"),
        ("curl https://elsewhere.example", "curl goes to another machine: mark the block"),
        ("curl http://127.0.0.1:7071/ | frobnicate", "frobnicate is nothing that this project or its checks know"),
        ("make demo && bogus", "bogus is nothing that this project or its checks know"),
        ("make demo; bogus", "bogus is nothing that this project or its checks know"),
        ("make demo || scripts/nope", "scripts/nope is nothing that this project or its checks know"),
        ("azd up", "azd is not here: mark the block"),
        ("azd deplyo", "azd is not known to have deplyo"),
        ("python -m sandbox demo", "python may be one without the packages: write .venv/bin/python"),
        ("uv pip frobnicate", "uv is nothing that this project or its checks know"),
        ("npx frobnicate", "npx is nothing that this project or its checks know"),
        ("frobnicate", "frobnicate is nothing that this project or its checks know"),
        ("make demo ARGS=--keep  # a remark", None),
        ('make test ARGS="tests/test_start.py -k start --timeout 5"', None),
        ("PORT=1 .venv/bin/python -m sandbox demo", None),
        (".venv/bin/python -m sandbox host --app . --port 7071 > host.log", None),
        (".venv/bin/python -m sandbox partner --port 8081", None),
        ("curl http://127.0.0.1:7071/api/health", None),
        ("scripts/start --port 7072", None),
    ],
)
def test_the_check_tells_what_exists_from_what_does_not(line: str, problem: str | None) -> None:
    assert problem_of(line) == problem


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("az functionapp restrat --name X", "az is not known to have functionapp restrat"),
        ("az functionapp restart --nmae X", "az functionapp restart is not known to have --nmae"),
        ("az functionapp restart now", "az functionapp restart takes no now"),
        ("az bicep build --file infra/main.bicep --stdout", None),
        ("azd env get-vale AZURE_LOCATION", "azd is not known to have env get-vale"),
        ("azd env get-value AZURE_FUNCTION_APP_NMAE", "azd env get-value: there is no AZURE_FUNCTION_APP_NMAE"),
        ("azd env get-value", "azd env get-value lacks its OUTPUT"),
        ("azd env set BUSINESS_API_ULR x", "azd env set: there is no BUSINESS_API_ULR"),
        ("azd env set BUSINESS_API_URL x", None),
        ("azd env set NAME VALUE", None),
        ("func azure functionapp publsh NAME", "func is not known to have azure functionapp"),
        ("func azure functionapp publish NAME", "func azure functionapp publish lacks its --python"),
        ("func azure functionapp publish NAME --python", None),
        ("gh api repos/{owner}/{repo}/actions/oidc", "gh api: there is no repos/{owner}/{repo}/actions/oidc"),
        ("gh variable sett X", "gh is not known to have variable sett"),
        ("gh variable set AZURE_CLIENT_DI", "gh variable set: there is no AZURE_CLIENT_DI"),
        ("npm install --global azurtie", "npm install: there is no azurtie"),
        ("brew install azure-function-core-tools@4", "brew install: there is no azure-function-core-tools@4"),
        ("sudo apt-get install azure-functions-core-tool", "apt-get install: there is no azure-functions-core-tool"),
        (
            "az keyvault secret set --name business-api-secret",
            "az keyvault secret set: there is no business-api-secret",
        ),
        ("az keyvault secret set --name business-api-client-secret", None),
        ('x="$(azd env get-vale X)"', "azd is not known to have env get-vale"),
        ('az ad sp create --id "$(azd env get-value "$(az frobnicate)")"', "az is not known to have frobnicate"),
        ("for x in 1 2; do gh variabel set; done", "gh is not known to have variabel set"),
        ("curl --fial https://elsewhere.example", "curl is not known to have --fial"),
    ],
)
def test_the_check_knows_what_foreign_commands_take(line: str, problem: str | None) -> None:
    assert problem_of(line, is_marked=True) == problem
