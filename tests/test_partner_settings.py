from __future__ import annotations

import subprocess
import sys
import traceback
from typing import Any

import pytest

from shared.auth.client_credentials import ClientCredentials
from shared.auth.entra import Entra, ManagedIdentity
from shared.errors import SettingsError
from shared.settings.app_settings import GRANTS, PartnerSettings, settings_problems
from shared.settings.reader import SettingReader

SECRET = "s3cr3t-value-of-more-than-32-characters"
URL = "https://api.example/v1"
PLAIN = {"URL": URL, "TOKEN_URL": "https://login.example/token", "CLIENT_ID": "relay", "CLIENT_SECRET": SECRET}
KEY = PLAIN | {"CLIENT_SECRET": "", "CLIENT_AUTH": "private_key_jwt"}
ENTRA = {"URL": URL, "TENANT_ID": "tenant", "CLIENT_ID": "relay", "CLIENT_SECRET": SECRET, "SCOPE": "api://x/.default"}
IDENTITY = {"URL": URL, "MANAGED_IDENTITY": "system", "RESOURCE": "api://x"}
SECRETS = "CRM_CLIENT_SECRET, CRM_CLIENT_SECRET_FILE"
KEYS = "CRM_CLIENT_CERTIFICATE, CRM_FEDERATED_TOKEN_FILE"
SOURCES = "CRM_TOKEN_URL, CRM_ISSUER, CRM_TENANT_ID, CRM_MANAGED_IDENTITY"


def named(settings: dict[str, str], name: str = "CRM") -> dict[str, str]:
    return {f"{name}_{key}": text for key, text in settings.items()}


def read(settings: dict[str, str], **changes: str) -> PartnerSettings:
    return PartnerSettings.from_environ(named(settings | changes), "CRM")


def problems(settings: dict[str, str], **changes: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(settings, **changes)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    return list(caught.value.problems)


def test_every_optional_setting_has_a_default() -> None:
    settings = read(PLAIN)
    assert (settings.url, settings.timeout, settings.max_connections) == (URL, 30, 100)
    assert (settings.rate, settings.token_leeway, settings.token_default_lifetime) == (None, 60, 300)
    assert (settings.proxy, settings.token_proxy) == (None, None)
    assert settings.grant == ClientCredentials(
        "CRM_", "relay", token_url="https://login.example/token", client_secret=SECRET
    )


@pytest.mark.parametrize(
    ("setting", "raw", "field", "value"),
    [
        ("URL", "https://api.example/v1//", "url", "https://api.example/v1"),
        ("TIMEOUT", "1.5", "timeout", 1.5),
        ("MAX_CONNECTIONS", " 7 ", "max_connections", 7),
        ("RATE", "0.25", "rate", 0.25),
        ("TOKEN_LEEWAY", "0", "token_leeway", 0),
        ("TOKEN_DEFAULT_LIFETIME", "60", "token_default_lifetime", 60),
    ],
)
def test_reads_every_setting_of_a_partner(setting: str, raw: str, field: str, value: object) -> None:
    assert getattr(read(PLAIN, **{setting: raw}), field) == value


@pytest.mark.parametrize(
    ("setting", "raw", "rule"),
    [
        ("URL", "", "is missing"),
        ("URL", f"http://a.example/{SECRET}", "is not usable: it must be https, or plain http to a loopback address"),
        ("URL", "https://a.example/?p=1", "is not usable: it has a query"),
        ("TOKEN_URL", f"https://u:{SECRET}@a.example", "is not usable: it has a user name or a password in it"),
        ("TIMEOUT", "601", "must be a number from 0.001 to 600"),
        ("MAX_CONNECTIONS", "1.5", "must be a whole number from 1 to 10000"),
        *(("RATE", raw, "must be a number from 0.001 to 100000") for raw in ("0", "-1", "x", "nan")),
        ("TOKEN_LEEWAY", "-1", "must be a number from 0 to 86400"),
        ("TOKEN_DEFAULT_LIFETIME", "0", "must be a number from 0.001 to 86400"),
        ("CLIENT_AUTH", "none", "must be one of client_secret_basic, client_secret_post, private_key_jwt"),
        ("CLIENT_ID", "", "is missing: the token endpoint asks for it"),
        *(
            (key, "x", "is set, which CRM_CLIENT_AUTH=client_secret_basic does not use: private_key_jwt does")
            for key in ("CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE", "CLIENT_KEY_ID")
        ),
    ],
)
def test_a_wrong_value_is_a_problem_that_names_its_setting(setting: str, raw: str, rule: str) -> None:
    assert problems(PLAIN, **{setting: raw}) == [f"CRM_{setting} {rule}"]


@pytest.mark.parametrize(
    ("settings", "grant", "server", "is_shareable"),
    [
        (PLAIN, ClientCredentials, "https://login.example/token", True),
        (PLAIN | {"TOKEN_URL": "", "ISSUER": "https://login.example"}, ClientCredentials, None, True),
        (KEY | {"CLIENT_CERTIFICATE": "/keys/a"}, ClientCredentials, None, True),
        (KEY | {"FEDERATED_TOKEN_FILE": "/keys/a"}, ClientCredentials, None, True),
        (PLAIN | {"CLIENT_SECRET": "", "CLIENT_SECRET_FILE": "/run/secret"}, ClientCredentials, None, True),
        (ENTRA, Entra, "https://login.microsoftonline.com", True),
        (IDENTITY, ManagedIdentity, None, False),
        (IDENTITY | {"MANAGED_IDENTITY": "SYSTEM"}, ManagedIdentity, None, False),
        (IDENTITY | {"MANAGED_IDENTITY": "client-7"}, ManagedIdentity, None, True),
    ],
)
def test_the_source_of_tokens_picks_the_grant(
    settings: dict[str, str], grant: type[object], server: str | None, *, is_shareable: bool
) -> None:
    chosen = read(settings).grant
    assert isinstance(chosen, grant)
    assert server in {None, chosen.server}
    assert chosen.is_shareable is is_shareable


def test_exactly_one_source_of_tokens_is_named() -> None:
    assert problems(PLAIN, TOKEN_URL="") == [f"there must be exactly one of {SOURCES}"]
    assert problems(PLAIN, TENANT_ID="tenant") == [f"there must be exactly one of {SOURCES}, not 2"]


def test_every_client_has_one_credential() -> None:
    assert problems(PLAIN, CLIENT_SECRET="") == [f"CRM_CLIENT_AUTH=client_secret_basic needs exactly one of {SECRETS}"]
    assert problems(PLAIN, CLIENT_SECRET_FILE="x") == [
        f"CRM_CLIENT_AUTH=client_secret_basic needs exactly one of {SECRETS}, not 2"
    ]
    assert problems(KEY) == [f"CRM_CLIENT_AUTH=private_key_jwt needs exactly one of {KEYS}"]
    assert problems(ENTRA, CLIENT_SECRET="") == [f"CRM_TENANT_ID is set, which needs exactly one of {SECRETS}, {KEYS}"]
    assert problems(ENTRA, CLIENT_CERTIFICATE="x")[0].endswith(f"{KEYS}, not 2")


@pytest.mark.parametrize(
    ("changes", "audience"),
    [
        ({}, "token_endpoint"),
        ({"TOKEN_URL": "", "ISSUER": "https://login.example"}, "issuer"),
        ({"CLIENT_ASSERTION_AUDIENCE": "https://login.example/realm"}, "https://login.example/realm"),
    ],
)
def test_the_audience_of_an_assertion_is_the_issuer_where_one_is_named(changes: dict[str, str], audience: str) -> None:
    grant = read(KEY | changes, CLIENT_CERTIFICATE="/keys/a", CLIENT_KEY_ALGORITHM="PS256").grant
    assert isinstance(grant, ClientCredentials)
    assert (grant.client_assertion_audience, grant.client_key_algorithm) == (audience, "PS256")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"CLIENT_ASSERTION_AUDIENCE": "issuer"}, "CRM_CLIENT_ASSERTION_AUDIENCE must be issuer (with CRM_ISSUER), "),
        ({"CLIENT_ASSERTION_AUDIENCE": "me"}, "CRM_CLIENT_ASSERTION_AUDIENCE must be issuer (with CRM_ISSUER), "),
        ({"CLIENT_KEY_ALGORITHM": "none"}, "CRM_CLIENT_KEY_ALGORITHM must be one of RS256, "),
        (
            {"CLIENT_CERTIFICATE": "", "FEDERATED_TOKEN_FILE": "/a", "CLIENT_KEY_ID": "k"},
            "CRM_CLIENT_KEY_ID is set, which does nothing for a federated token: whoever signs it decides",
        ),
    ],
)
def test_a_setting_of_an_assertion_that_cannot_work_is_a_problem(changes: dict[str, str], problem: str) -> None:
    (found,) = problems(KEY, **({"CLIENT_CERTIFICATE": "/keys/a"} | changes))
    assert found.startswith(problem)


@pytest.mark.parametrize("tenant", ["a/b", "-", "a b", "a?b"])
def test_a_client_of_entra_has_an_id_and_a_tenant(tenant: str) -> None:
    assert problems(ENTRA, TENANT_ID=tenant, CLIENT_ID="") == [
        "CRM_TENANT_ID must be a GUID or a domain name",
        "CRM_CLIENT_ID is missing: CRM_TENANT_ID is set",
    ]


@pytest.mark.parametrize(("settings", "source"), [(ENTRA, "TENANT_ID"), (IDENTITY, "MANAGED_IDENTITY")])
def test_entra_is_asked_for_something(settings: dict[str, str], source: str) -> None:
    assert problems(settings, SCOPE="", RESOURCE="") == [
        f"CRM_{source} is set, so one of CRM_SCOPE, CRM_RESOURCE, CRM_AUDIENCE is needed"
    ]


@pytest.mark.parametrize(
    ("wishes", "resource"),
    [
        ({"SCOPE": "api://x/.default"}, "api://x"),
        ({"AUDIENCE": "api://x"}, "api://x"),
        ({"RESOURCE": "api://x", "SCOPE": "a b"}, "api://x"),
    ],
)
def test_a_managed_identity_is_asked_for_one_resource(wishes: dict[str, str], resource: str) -> None:
    assert read(IDENTITY | {"RESOURCE": ""}, **wishes).grant == ManagedIdentity(None, resource)
    assert problems(IDENTITY, RESOURCE="", SCOPE="a b") == [
        "CRM_SCOPE must be one scope: a managed identity asks for one resource"
    ]


def test_a_client_id_beside_a_managed_identity_is_a_problem() -> None:
    (problem,) = problems(IDENTITY, CLIENT_ID="7")
    assert problem.endswith("CRM_MANAGED_IDENTITY is the client id of a user-assigned one")


def test_the_proxies_on_the_way_are_found() -> None:
    environ = named(PLAIN) | {"HTTPS_PROXY": f"http://u:{SECRET}@p:1", "NO_PROXY": "login.example"}
    settings = PartnerSettings.from_environ(environ, "CRM")
    assert (settings.proxy, settings.token_proxy) == (f"http://u:{SECRET}@p:1", None)
    assert SECRET not in repr(settings)


REFERENCE = "@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/a)"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        *((PLAIN, key) for key in (*PLAIN, "SCOPE", "TIMEOUT", "CLIENT_AUTH")),
        *((ENTRA, key) for key in ENTRA),
        *((IDENTITY, key) for key in IDENTITY),
        (IDENTITY | {"SCOPE": "a b"}, "RESOURCE"),
        (KEY | {"TOKEN_URL": "", "CLIENT_CERTIFICATE": "key.pem", "CLIENT_ASSERTION_AUDIENCE": "issuer"}, "ISSUER"),
    ],
)
def test_a_reference_that_is_not_resolved_is_the_one_problem(settings: dict[str, str], key: str) -> None:
    (problem,) = problems(settings, **{key: REFERENCE})
    assert problem.startswith(f"CRM_{key} is a reference that is not resolved")
    assert "vault.example" not in problem


class _Recording(dict[str, str]):
    """Remembers what it was asked for."""

    def __init__(self, environ: dict[str, str]) -> None:
        super().__init__(environ)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401, as dict has it
        self.asked.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("settings", [PLAIN, KEY, ENTRA, IDENTITY])
def test_a_grant_declares_every_setting_that_it_reads(settings: dict[str, str]) -> None:
    (kind,) = (kind for kind in GRANTS if set(kind.SOURCES) & settings.keys())
    environ = _Recording(named(settings))
    kind.from_settings(SettingReader(environ, "CRM_"))
    assert {name.removeprefix("CRM_") for name in environ.asked} <= {*kind.KEYS, "CLIENT_ID"}


def test_an_empty_environment_names_everything_that_is_needed() -> None:
    assert problems({}) == [
        "CRM_URL is missing",
        f"there must be exactly one of {SOURCES}",
        "CRM_CLIENT_ID is missing: the token endpoint asks for it",
        f"CRM_CLIENT_AUTH=client_secret_basic needs exactly one of {SECRETS}",
    ]


def test_a_slip_in_a_name_gets_a_suggestion() -> None:
    found = problems(PLAIN | {"TOKENURL": "x", "TIMEOUTS": "5", "Rate": "5"}, TOKEN_URL="")
    assert found[1:] == [
        "CRM_Rate is not a setting: did you mean CRM_RATE?",
        "CRM_TIMEOUTS is not a setting: did you mean CRM_TIMEOUT?",
        "CRM_TOKENURL is not a setting: did you mean CRM_TOKEN_URL?",
    ]


def test_every_problem_of_the_app_and_of_all_partners_is_reported_together() -> None:
    environ = named(PLAIN | {"TIMEOUT": "x"}) | named(PLAIN, "ERP") | named({"URL": URL}, "SHOP")
    environ |= {"ERP_RATES": "1", "DELIVERY_CHUNK": "0", "TOKEN_STORE_KEY": "k" * 32, "SSL_CERT_FILE": "/none"}
    environ |= {"HTTPS_PROXY": "ftp://p"}
    assert settings_problems(environ, ["CRM", "ERP", "SHOP"]) == [
        "DELIVERY_CHUNK must be a whole number from 1 to 1000",
        "TOKEN_STORE_URL is missing: TOKEN_STORE_KEY is set",
        "CRM_TIMEOUT must be a number from 0.001 to 600",
        "HTTPS_PROXY must be an http or https URL",
        "SSL_CERT_FILE cannot be read, or holds no certificates in PEM form",
        "ERP_RATES is not a setting: did you mean ERP_RATE?",
        f"there must be exactly one of {SOURCES}".replace("CRM", "SHOP"),
        "SHOP_CLIENT_ID is missing: the token endpoint asks for it",
        f"SHOP_CLIENT_AUTH=client_secret_basic needs exactly one of {SECRETS}".replace("CRM", "SHOP"),
    ]


@pytest.mark.parametrize("names", [["CRM", "CRM_API"], ["CRM_A", "CRM_B"], ["ACME_ORDERS", "ACME_ORDERS_V2"]])
def test_the_settings_of_one_partner_are_no_slip_of_another(names: list[str]) -> None:
    every = {key for kind in GRANTS for key in kind.KEYS} | {"RATE", "TIMEOUT"}
    for one, other in (names, names[::-1]):
        only = named(PLAIN, one) | dict.fromkeys((f"{other}_{key}" for key in every), "x")
        assert not [problem for problem in settings_problems(only, [one, other]) if "did you mean" in problem]


@pytest.mark.parametrize("base", [PLAIN, KEY | {"CLIENT_CERTIFICATE": "/keys/a"}, ENTRA, IDENTITY])
@pytest.mark.parametrize("pasted", [SECRET, f"https://{SECRET}/?{SECRET}", f"issuer {SECRET}"])
def test_a_secret_that_is_pasted_into_any_setting_is_in_no_message(base: dict[str, str], pasted: str) -> None:
    for key in ("URL", "TIMEOUT", *(key for kind in GRANTS for key in kind.KEYS)):
        problems(base, RATE="x", **{key: pasted})


def test_settings_are_read_without_the_libraries_that_grants_need() -> None:
    check = (
        "import sys, shared.settings.app_settings as partner\n"
        "partner.settings_problems({}, ['CRM'])\n"
        "sys.exit(bool({'msal', 'requests', 'cryptography', 'httpx', 'aiohttp'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)  # noqa: S603, this interpreter, constant code


def test_no_secret_is_in_a_repr() -> None:
    assert SECRET not in repr(read(PLAIN)) + repr(read(ENTRA))
    assert SECRET not in repr(Entra("t", "c", client_secret=SECRET))
