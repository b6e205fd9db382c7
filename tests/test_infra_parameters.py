"""What azd's variables set: parameters of the templates, and app settings that the app knows."""

from __future__ import annotations

import re

from tests.bicep_template import text
from tests.infra_files import MAIN, default, parameters_file, resource, settings_in_main, worker_settings
from tests.setting_names import setting_names

# What the template sets for the platform, not for `Settings`. The names are those of
# Azure-Samples/functions-quickstart-python-http-azd: infra/app/api.bicep.
PLATFORM_SETTINGS = {
    "AzureWebJobsStorage__credential": "managedidentity",
    "AzureWebJobsStorage__clientId": "identity.outputs.clientId",
    "AzureWebJobsStorage__blobServiceUri": "storage.outputs.blobUrl",
    "AzureWebJobsStorage__queueServiceUri": "storage.outputs.queueUrl",
    "AzureWebJobsStorage__tableServiceUri": "storage.outputs.tableUrl",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "monitoring.outputs.connectionString",
    # Azure/azure-webjobs-sdk: src/Microsoft.Azure.WebJobs.Logging.ApplicationInsights/TokenCredentialOptions.cs
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "Authorization=AAD;ClientId=${identity.outputs.clientId}",
    "DURABLE_TASK_SCHEDULER_CONNECTION_STRING": "usesScheduler ? scheduler!.outputs.connectionString : ''",
}
APP_SETTINGS = {
    "BUSINESS_API_URL": "businessApiUrl",
    "BUSINESS_API_MANAGED_IDENTITY": "managedIdentity == 'system' ? identity.outputs.clientId : managedIdentity",
    "BUSINESS_API_CLIENT_SECRET": "vault.outputs.businessApiClientSecretReference",
    "TOKEN_STORE_URL": "vault.outputs.tokenStoreUrlReference",
    "TOKEN_STORE_KEY": "vault.outputs.tokenStoreKeyReference",
}


def test_every_app_setting_can_be_set() -> None:
    settings = setting_names()
    assert "BUSINESS_API_URL" in settings
    assert set(parameters_file()["appSettings"]) | set(APP_SETTINGS) == settings


def test_the_template_gives_the_platform_and_the_app_what_they_need() -> None:
    assert settings_in_main() == PLATFORM_SETTINGS | APP_SETTINGS


def test_no_setting_comes_from_two_places_but_the_managed_identity() -> None:
    assert set(parameters_file()["appSettings"]) & set(settings_in_main()) == {"BUSINESS_API_MANAGED_IDENTITY"}
    assert set(worker_settings()) & (set(settings_in_main()) | setting_names()) == set()


def test_the_worker_sends_its_telemetry_unless_it_is_told_not_to() -> None:
    assert default(MAIN, "parameter", "workerTelemetry") == "true"
    assert "workerTelemetry ? workerTelemetrySettings : {}" in MAIN.text
    assert worker_settings()["PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY"] == "true"


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
            assert value.partition("=")[2].rstrip("}") == default(MAIN, "parameter", name), name


def test_every_parameter_that_has_few_values_lists_them() -> None:
    listed = {
        name: re.findall(r"'([^']+)'|(\d+)", each.decorators.partition("@allowed([")[2].partition("])")[0])
        for name, each in MAIN.declarations("parameter").items()
        if "@allowed(" in each.decorators
    }
    assert {name: [a or b for a, b in values] for name, values in listed.items()} == {
        "durableBackend": ["storage", "dts"],
        "schedulerSku": ["Consumption", "Dedicated"],
        "storageSku": ["Standard_LRS", "Standard_ZRS"],
        "instanceMemoryMB": ["512", "2048", "4096"],
    }


def test_empty_settings_are_left_out() -> None:
    settings = text(resource("function-app", "settings"))
    assert "filter(items(appSettings), setting => !empty(setting.value))" in settings
