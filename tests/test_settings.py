from __future__ import annotations

import traceback

import pytest

from shared.delivery.retry import RetryPolicy
from shared.errors import SettingsError
from shared.settings import Settings
from tests.setting_names import setting_names

SECRET = "s3cr3t-value-of-more-than-32-characters"
PLAIN = {
    "BUSINESS_API_URL": "https://api.example/v1",
    "BUSINESS_API_TOKEN_URL": "https://login.example/token",
    "BUSINESS_API_CLIENT_ID": "relay",
    "BUSINESS_API_CLIENT_SECRET": SECRET,
}
ENTRA = {
    "BUSINESS_API_URL": "https://api.example/v1",
    "BUSINESS_API_TENANT_ID": "tenant",
    "BUSINESS_API_CLIENT_ID": "relay",
    "BUSINESS_API_CLIENT_SECRET": SECRET,
    "BUSINESS_API_SCOPE": "api://x/.default",
}
IDENTITY = {
    "BUSINESS_API_URL": "https://api.example/v1",
    "BUSINESS_API_MANAGED_IDENTITY": "system",
    "BUSINESS_API_RESOURCE": "api://x",
}
SECRETS = "BUSINESS_API_CLIENT_SECRET, BUSINESS_API_CLIENT_SECRET_FILE"
KEYS = "BUSINESS_API_CLIENT_CERTIFICATE, BUSINESS_API_FEDERATED_TOKEN_FILE"
SOURCES = "BUSINESS_API_TOKEN_URL, BUSINESS_API_ISSUER, BUSINESS_API_TENANT_ID, BUSINESS_API_MANAGED_IDENTITY"


def given(base: dict[str, str], **changes: str | None) -> dict[str, str]:
    """Settings with some changed; None takes one away. Names without the client's are given its own."""
    environ = dict(base)
    for name, value in changes.items():
        whole = name if name.startswith(("DELIVERY_", "TOKEN_STORE_")) else f"BUSINESS_API_{name}"
        if value is None:
            environ.pop(whole, None)
        else:
            environ[whole] = value
    return environ


def problems(environ: dict[str, str], name: str = "BUSINESS_API") -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ(environ, name)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return list(caught.value.problems)


def value(settings: Settings, path: str) -> object:
    found: object = settings
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("setting", "path", "default", "raw", "read"),
    [
        ("TIMEOUT", "timeout", 30, "1.5", 1.5),
        ("MAX_CONNECTIONS", "max_connections", 100, "7", 7),
        ("CLIENT_AUTH", "token.client_auth", "client_secret_basic", "client_secret_post", "client_secret_post"),
        ("SCOPE", "token.scope", None, "a b", "a b"),
        ("AUDIENCE", "token.audience", None, "aud", "aud"),
        ("RESOURCE", "token.resource", None, "api://x", "api://x"),
        ("TOKEN_LEEWAY", "token.leeway", 60, "0", 0),
        ("TOKEN_DEFAULT_LIFETIME", "token.default_lifetime", 300, "60", 60),
        ("DELIVERY_DEADLINE", "delivery.retry.deadline", 86_400, "60", 60),
        ("DELIVERY_RETRY_FIRST", "delivery.retry.first", 1, "0.5", 0.5),
        ("DELIVERY_RETRY_MAX", "delivery.retry.max", 300, "600", 600),
        ("DELIVERY_CHUNK", "delivery.chunk", 50, "1", 1),
        ("DELIVERY_HISTORY_DAYS", "delivery.history_days", 30, "0.5", 0.5),
        ("DELIVERY_LOOK_UP", "delivery.look_up", "always", "uncertain", "uncertain"),
    ],
)
def test_a_setting_has_its_default_and_its_value(
    setting: str, path: str, default: object, raw: str, read: object
) -> None:
    assert value(Settings.from_environ(PLAIN), path) == default
    assert value(Settings.from_environ(given(PLAIN, **{setting: ""})), path) == default
    assert value(Settings.from_environ(given(PLAIN, **{setting: f" {raw} "})), path) == read


@pytest.mark.parametrize(
    ("setting", "raw", "problem"),
    [
        *((name, raw, "must be a number over 0 and up to 600") for name in ["TIMEOUT"] for raw in ["0", "601", "x"]),
        *(("MAX_CONNECTIONS", raw, "must be a whole number from 1 to 10000") for raw in ["0", "10001", "1.5", "x"]),
        ("CLIENT_AUTH", "none", "must be one of client_secret_basic, client_secret_post, private_key_jwt"),
        *(("TOKEN_LEEWAY", raw, "must be a number from 0 up to 86400") for raw in ["-1", "86401", "x"]),
        *(("TOKEN_DEFAULT_LIFETIME", raw, "must be a number over 0 and up to 86400") for raw in ["0", "86401", "x"]),
        *(("DELIVERY_DEADLINE", raw, "must be a number over 0 and up to 3.1536e+07") for raw in ["0", "1e9", "x"]),
        *(("DELIVERY_RETRY_FIRST", raw, "must be a number over 0 and up to 86400") for raw in ["0", "86401", "x"]),
        *(("DELIVERY_RETRY_MAX", raw, "must be a number over 0 and up to 86400") for raw in ["0", "86401", "nan"]),
        *(("DELIVERY_CHUNK", raw, "must be a whole number from 1 to 1000") for raw in ["0", "1001", "x"]),
        *(("DELIVERY_HISTORY_DAYS", raw, "must be a number over 0 and up to 36500") for raw in ["0", "36501", "x"]),
        ("DELIVERY_LOOK_UP", "never", "must be one of always, uncertain"),
    ],
)
def test_a_wrong_value_is_a_problem_that_names_its_setting(setting: str, raw: str, problem: str) -> None:
    name = setting if setting.startswith("DELIVERY_") else f"BUSINESS_API_{setting}"
    assert problems(given(PLAIN, **{setting: raw})) == [f"{name} {problem}"]


def test_the_first_wait_is_no_longer_than_the_last() -> None:
    assert problems(given(PLAIN, DELIVERY_RETRY_FIRST="10", DELIVERY_RETRY_MAX="9.5")) == [
        "DELIVERY_RETRY_FIRST must not be more than DELIVERY_RETRY_MAX"
    ]
    retry = Settings.from_environ(given(PLAIN, DELIVERY_RETRY_FIRST="5", DELIVERY_RETRY_MAX="5")).delivery.retry
    assert retry == RetryPolicy(86_400, 5, 5)


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("https://api.example", "https://api.example"),
        ("https://api.example/v1/", "https://api.example/v1"),
        ("http://localhost:8081//", "http://localhost:8081"),
    ],
)
def test_the_url_of_the_api_has_no_slash_at_its_end(raw: str, url: str) -> None:
    assert Settings.from_environ(given(PLAIN, URL=raw)).api_url == url


@pytest.mark.parametrize("setting", ["URL", "TOKEN_URL", "ISSUER"])
@pytest.mark.parametrize(
    "raw",
    [
        "http://a.example",
        f"https://u:{SECRET}@a.example",
        f"https://a.example/#{SECRET}",
        "a",
        f"https://bücher.example/{SECRET}",
        f"https://a.example/ä/{SECRET}",
        "http://[::1%25lo]:1",
    ],
)
def test_a_url_that_is_no_safe_place_for_a_secret_is_a_problem(setting: str, raw: str) -> None:
    base = given(PLAIN, TOKEN_URL=None) if setting == "ISSUER" else PLAIN
    (problem,) = problems(given(base, **{setting: raw}))
    assert problem.startswith(f"BUSINESS_API_{setting} is not usable: ")
    assert SECRET not in problem


@pytest.mark.parametrize("setting", ["URL", "ISSUER"])
def test_only_a_token_endpoint_may_have_a_query(setting: str) -> None:
    base = given(PLAIN, TOKEN_URL=None, ISSUER="https://login.example")
    assert problems(given(base, **{setting: "https://a.example/?p=1"})) == [
        f"BUSINESS_API_{setting} is not usable: it has a query"
    ]
    with_query = given(PLAIN, TOKEN_URL="https://login.example/token?p=policy")
    assert Settings.from_environ(with_query).token.token_url == "https://login.example/token?p=policy"


def test_the_url_of_the_api_is_required() -> None:
    assert problems(given(PLAIN, URL=None)) == ["BUSINESS_API_URL is missing"]


# Where tokens come from


@pytest.mark.parametrize(
    ("setting", "raw", "base"),
    [
        ("TOKEN_URL", "https://login.example/token", PLAIN),
        ("ISSUER", "https://login.example", given(PLAIN, TOKEN_URL=None)),
        ("TENANT_ID", "tenant", ENTRA),
        ("MANAGED_IDENTITY", "00000000-0000-0000-0000-000000000001", IDENTITY),
    ],
)
def test_one_source_of_tokens_is_enough(setting: str, raw: str, base: dict[str, str]) -> None:
    token = Settings.from_environ(given(base, **{setting: raw})).token
    named = {"TOKEN_URL": token.token_url, "ISSUER": token.issuer, "TENANT_ID": token.tenant_id}
    named["MANAGED_IDENTITY"] = token.managed_identity
    assert {name for name, found in named.items() if found} == {setting}
    assert named[setting] == raw


def test_no_source_of_tokens_is_a_problem() -> None:
    assert problems(given(PLAIN, TOKEN_URL=None)) == [f"exactly one of {SOURCES} is needed"]


def test_two_sources_of_tokens_are_a_problem() -> None:
    assert problems(given(PLAIN, TENANT_ID="tenant")) == [
        f"exactly one of {SOURCES} is needed, not 2: BUSINESS_API_TOKEN_URL, BUSINESS_API_TENANT_ID"
    ]


@pytest.mark.parametrize("source", ["TOKEN_URL", "ISSUER"])
def test_a_client_of_a_token_endpoint_has_an_id_and_a_secret(source: str) -> None:
    bare = {"BUSINESS_API_URL": "https://api.example", f"BUSINESS_API_{source}": "https://login.example"}
    assert problems(bare) == [
        "BUSINESS_API_CLIENT_ID is missing: the token endpoint asks for it",
        f"BUSINESS_API_CLIENT_AUTH=client_secret_basic needs exactly one of {SECRETS}",
    ]
    assert problems(given(bare, CLIENT_ID="relay", CLIENT_AUTH="client_secret_post")) == [
        f"BUSINESS_API_CLIENT_AUTH=client_secret_post needs exactly one of {SECRETS}"
    ]


@pytest.mark.parametrize("credential", ["CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE"])
def test_a_client_that_signs_has_one_key(credential: str) -> None:
    base = given(PLAIN, CLIENT_SECRET=None, CLIENT_AUTH="private_key_jwt")
    settings = Settings.from_environ(given(base, **{credential: " /keys/a "}))
    assert settings.token.client_auth == "private_key_jwt"
    assert value(settings, f"token.{credential.lower()}") == "/keys/a"
    needed = f"BUSINESS_API_CLIENT_AUTH=private_key_jwt needs exactly one of {KEYS}"
    assert problems(base) == [needed]
    both = given(base, CLIENT_CERTIFICATE="/keys/a", FEDERATED_TOKEN_FILE="/keys/b")
    assert problems(both) == [f"{needed}, not 2"]
    assert problems(given(base, CLIENT_ID=None, **{credential: "/keys/a"})) == [
        "BUSINESS_API_CLIENT_ID is missing: the token endpoint asks for it"
    ]


def test_a_secret_is_in_a_setting_or_in_a_file() -> None:
    file = Settings.from_environ(given(PLAIN, CLIENT_SECRET=None, CLIENT_SECRET_FILE=" /run/secret ")).token
    assert (file.client_secret, file.client_secret_file) == (None, "/run/secret")
    assert problems(given(PLAIN, CLIENT_SECRET_FILE="/run/secret")) == [
        f"BUSINESS_API_CLIENT_AUTH=client_secret_basic needs exactly one of {SECRETS}, not 2"
    ]


def test_a_key_has_an_id_where_the_server_needs_one() -> None:
    base = given(PLAIN, CLIENT_SECRET=None, CLIENT_AUTH="private_key_jwt", CLIENT_KEY_ID="key-7")
    assert Settings.from_environ(given(base, CLIENT_CERTIFICATE="/keys/a")).token.client_key_id == "key-7"
    assert problems(given(base, FEDERATED_TOKEN_FILE="/keys/token")) == [
        "BUSINESS_API_CLIENT_KEY_ID is of no use: whoever signs the federated token names its key"
    ]


@pytest.mark.parametrize("unused", ["CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE", "CLIENT_KEY_ID"])
def test_a_key_that_the_method_does_not_use_is_a_problem(unused: str) -> None:
    (problem,) = problems(given(PLAIN, **{unused: "/keys/a"}))
    method = "BUSINESS_API_CLIENT_AUTH=client_secret_basic"
    assert problem == f"BUSINESS_API_{unused} is set, which {method} does not use: private_key_jwt does"


def test_a_secret_that_the_method_does_not_use_is_none() -> None:
    base = given(PLAIN, CLIENT_AUTH="private_key_jwt", CLIENT_CERTIFICATE="/keys/a")
    assert Settings.from_environ(base).token.client_auth == "private_key_jwt"


CREDENTIALS = ["CLIENT_SECRET", "CLIENT_SECRET_FILE", "CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE"]


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_client_of_entra_has_one_credential(credential: str) -> None:
    base = given(ENTRA, CLIENT_SECRET=None)
    assert Settings.from_environ(given(base, **{credential: "x"})).token.tenant_id == "tenant"
    needed = f"BUSINESS_API_TENANT_ID is set, which needs exactly one of {SECRETS}, {KEYS}"
    assert problems(base) == [needed]
    another = "CLIENT_SECRET" if credential != "CLIENT_SECRET" else "CLIENT_CERTIFICATE"
    assert problems(given(base, **{credential: "x", another: "y"})) == [f"{needed}, not 2"]


@pytest.mark.parametrize("tenant", ["a/b", "-", "a b", "a?b"])
def test_a_tenant_is_a_guid_or_a_domain_name(tenant: str) -> None:
    assert problems(given(ENTRA, TENANT_ID=tenant)) == ["BUSINESS_API_TENANT_ID must be a GUID or a domain name"]


def test_a_client_of_entra_has_an_id() -> None:
    assert problems(given(ENTRA, CLIENT_ID=None)) == [
        "BUSINESS_API_CLIENT_ID is missing: BUSINESS_API_TENANT_ID is set"
    ]


@pytest.mark.parametrize(("base", "source"), [(ENTRA, "TENANT_ID"), (IDENTITY, "MANAGED_IDENTITY")])
@pytest.mark.parametrize("kind", ["SCOPE", "RESOURCE", "AUDIENCE"])
def test_entra_is_asked_for_something(base: dict[str, str], source: str, kind: str) -> None:
    bare = given(base, SCOPE=None, RESOURCE=None)
    assert Settings.from_environ(given(bare, **{kind: "api://x"}))
    kinds = "BUSINESS_API_SCOPE, BUSINESS_API_RESOURCE, BUSINESS_API_AUDIENCE"
    assert problems(bare) == [f"BUSINESS_API_{source} is set, so one of {kinds} is needed"]


def test_a_managed_identity_needs_no_client() -> None:
    token = Settings.from_environ(IDENTITY).token
    assert (token.managed_identity, token.client_id, token.client_secret) == ("system", None, None)


@pytest.mark.parametrize("identity", ["system", "System", "SYSTEM"])
def test_the_identity_of_the_system_has_no_case(identity: str) -> None:
    token = Settings.from_environ(given(IDENTITY, MANAGED_IDENTITY=identity)).token
    assert (token.managed_identity, token.is_system_identity) == ("system", True)
    assert not Settings.from_environ(given(IDENTITY, MANAGED_IDENTITY="Systems")).token.is_system_identity


def test_a_client_id_beside_a_managed_identity_is_a_problem() -> None:
    (problem,) = problems(given(IDENTITY, CLIENT_ID="00000000-0000-0000-0000-000000000001"))
    assert problem.startswith("BUSINESS_API_CLIENT_ID is set, which a managed identity does not use: ")
    assert problem.endswith("BUSINESS_API_MANAGED_IDENTITY is the client id of a user-assigned one")


def test_a_managed_identity_is_asked_for_one_resource() -> None:
    assert problems(given(IDENTITY, RESOURCE=None, SCOPE="a b")) == [
        "BUSINESS_API_SCOPE must be one scope: a managed identity asks for one resource"
    ]
    assert Settings.from_environ(given(IDENTITY, SCOPE="a b")).token.resource == "api://x"


# Where tokens are shared


@pytest.mark.parametrize(
    "url",
    [
        f"rediss://:{SECRET}@cache.example:6380/0?ssl_ca_certs=/keys/ca.pem",
        f"redis://:{SECRET}@localhost:6379/0",
        "redis://127.0.0.1",
        "redis://[::1]:6379",
        "unix:///run/redis.sock",
    ],
)
def test_a_token_store_has_a_url_and_a_key(url: str) -> None:
    store = Settings.from_environ(given(PLAIN, TOKEN_STORE_URL=url, TOKEN_STORE_KEY="k" * 32)).token_store
    assert store is not None
    assert (store.url, store.key) == (url, "k" * 32)


def test_a_key_of_a_token_store_is_long() -> None:
    found = problems(given(PLAIN, TOKEN_STORE_URL="rediss://a", TOKEN_STORE_KEY="k" * 31))
    assert found == ["TOKEN_STORE_KEY must be a random text of at least 32 characters"]


@pytest.mark.parametrize("port", ["port", "65536", "0"])
def test_the_port_of_a_token_store_is_one(port: str) -> None:
    assert problems(given(PLAIN, TOKEN_STORE_URL=f"rediss://:{SECRET}@a:{port}/0", TOKEN_STORE_KEY="k" * 32)) == [
        "TOKEN_STORE_URL must have a port from 1 to 65535, or none"
    ]


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@cache.example:6379",
        f"redis://:{SECRET}@localhost.example",
        f"redis://:{SECRET}@10.0.0.4",
        f"redis://?host=cache.example&password={SECRET}",
        f"redis:///0?host=cache.example&password={SECRET}",
    ],
)
def test_no_password_of_a_token_store_goes_over_the_network_in_clear(url: str) -> None:
    (problem,) = problems(given(PLAIN, TOKEN_STORE_URL=url, TOKEN_STORE_KEY="k" * 32))
    assert problem.startswith("TOKEN_STORE_URL must begin with rediss://, plain redis:// is for a loopback address")


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "db=1&ssl_cert_reqs="])
def test_the_certificate_of_a_token_store_is_checked(query: str) -> None:
    assert problems(given(PLAIN, TOKEN_STORE_URL=f"rediss://a?{query}", TOKEN_STORE_KEY="k" * 32)) == [
        "TOKEN_STORE_URL must not say how the server's certificate is checked: it is"
    ]


def test_there_is_no_token_store_without_its_url() -> None:
    assert Settings.from_environ(PLAIN).token_store is None
    assert Settings.from_environ(given(PLAIN, TOKEN_STORE_KEY="k" * 32)).token_store is None


def test_every_problem_of_a_token_store_is_reported() -> None:
    assert problems(given(PLAIN, TOKEN_STORE_URL=f"http://u:{SECRET}@a")) == [
        "TOKEN_STORE_URL must begin with rediss://, unix://, or redis:// to a loopback address",
        "TOKEN_STORE_KEY is missing: TOKEN_STORE_URL is set, and tokens are stored encrypted",
    ]


# What the platform has not resolved


REFERENCE = "@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/client-secret)"


def unresolved(*names: str) -> list[str]:
    start = "is a reference that is not resolved: the secret is not there, the app's identity may not read it, "
    return [f"{name} {start}or the vault cannot be reached" for name in names]


@pytest.mark.parametrize(
    "setting", ["URL", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "SCOPE", "TIMEOUT", "CLIENT_AUTH"]
)
def test_a_reference_that_is_not_resolved_is_a_problem_that_does_not_repeat_it(setting: str) -> None:
    assert problems(given(PLAIN, **{setting: REFERENCE})) == unresolved(f"BUSINESS_API_{setting}")


@pytest.mark.parametrize(
    ("base", "setting"),
    [(ENTRA, "TENANT_ID"), (ENTRA, "CLIENT_SECRET"), (IDENTITY, "MANAGED_IDENTITY"), (IDENTITY, "RESOURCE")],
)
def test_no_other_rule_is_held_against_a_reference(base: dict[str, str], setting: str) -> None:
    assert problems(given(base, **{setting: REFERENCE})) == unresolved(f"BUSINESS_API_{setting}")


def test_references_of_the_token_store_are_problems_as_well() -> None:
    both = given(PLAIN, TOKEN_STORE_URL=REFERENCE, TOKEN_STORE_KEY="@Microsoft.KeyVault(x)")
    assert problems(both) == unresolved("TOKEN_STORE_URL", "TOKEN_STORE_KEY")


@pytest.mark.parametrize("setting", sorted(setting_names()))
def test_every_setting_may_be_a_reference(setting: str) -> None:
    environ = given(PLAIN, TOKEN_STORE_URL="rediss://a", TOKEN_STORE_KEY="k" * 32) | {setting: REFERENCE}
    found = problems(environ)
    assert found.count(unresolved(setting)[0]) == 1
    assert "vault.example" not in "".join(found)


# All of them


def test_every_problem_is_reported_at_once() -> None:
    found = problems(dict.fromkeys(setting_names(), "?"))
    assert [problem.partition(" ")[0] for problem in found if problem.startswith(("BUSINESS_API_", "DELIVERY_"))] == [
        "BUSINESS_API_URL",
        "BUSINESS_API_TOKEN_URL",
        "BUSINESS_API_ISSUER",
        "BUSINESS_API_CLIENT_AUTH",
        "BUSINESS_API_TOKEN_LEEWAY",
        "BUSINESS_API_TOKEN_DEFAULT_LIFETIME",
        "BUSINESS_API_TIMEOUT",
        "BUSINESS_API_MAX_CONNECTIONS",
        "DELIVERY_DEADLINE",
        "DELIVERY_RETRY_FIRST",
        "DELIVERY_RETRY_MAX",
        "DELIVERY_CHUNK",
        "DELIVERY_HISTORY_DAYS",
        "DELIVERY_LOOK_UP",
    ]
    assert f"exactly one of {SOURCES} is needed, not 4: {SOURCES}" in found
    assert "TOKEN_STORE_URL must begin with rediss://, unix://, or redis:// to a loopback address" in found
    assert "TOKEN_STORE_KEY must be a random text of at least 32 characters" in found
    assert len(found) == 17


def test_an_empty_environment_says_what_is_needed_first() -> None:
    assert problems({}) == ["BUSINESS_API_URL is missing", f"exactly one of {SOURCES} is needed"]


def test_a_second_api_has_its_own_settings_under_its_own_name() -> None:
    crm = {name.replace("BUSINESS_API", "CRM_API"): raw for name, raw in PLAIN.items()} | {"CRM_API_TIMEOUT": "5"}
    both = PLAIN | crm | {"DELIVERY_CHUNK": "9"}
    settings, other = Settings.from_environ(both), Settings.from_environ(both, "CRM_API")
    assert (settings.name, settings.timeout) == ("BUSINESS_API", 30)
    assert (other.name, other.timeout) == ("CRM_API", 5)
    assert settings.delivery == other.delivery
    assert problems({}, "CRM_API")[0] == "CRM_API_URL is missing"


@pytest.mark.parametrize("setting", sorted(setting_names()))
@pytest.mark.parametrize("pasted", [SECRET, f"'{SECRET}'", f"https://{SECRET}/?{SECRET}", f"redis://{SECRET}:6379"])
def test_a_secret_that_is_pasted_into_any_setting_is_in_no_message(setting: str, pasted: str) -> None:
    store = {"TOKEN_STORE_URL": "redis://localhost", "TOKEN_STORE_KEY": "k" * 32}
    signing = given(PLAIN, CLIENT_SECRET=None, CLIENT_AUTH="private_key_jwt", CLIENT_CERTIFICATE="/keys/a")
    for base in (PLAIN, ENTRA, IDENTITY, signing):
        # Beside another problem, so that there is a message in any case.
        with pytest.raises(SettingsError) as caught:
            Settings.from_environ(
                base | store | {"DELIVERY_RETRY_FIRST": "9", "DELIVERY_RETRY_MAX": "8", setting: pasted}
            )
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert SECRET not in shown


@pytest.mark.parametrize("broken", [{}, {"BUSINESS_API_TIMEOUT": "x", "BUSINESS_API_URL": "x"}])
def test_no_secret_is_in_a_message_or_a_repr(broken: dict[str, str]) -> None:
    secrets = {
        "BUSINESS_API_CLIENT_SECRET": SECRET,
        "TOKEN_STORE_URL": f"rediss://:{SECRET}@a",
        "TOKEN_STORE_KEY": SECRET,
    }
    environ = PLAIN | secrets | broken
    try:
        shown = repr(Settings.from_environ(environ))
    except SettingsError as exc:
        shown = "".join(traceback.format_exception(exc)) + repr(exc) + repr(exc.problems)
    assert shown
    assert SECRET not in shown


def test_settings_do_not_change() -> None:
    settings = Settings.from_environ(PLAIN)
    with pytest.raises(AttributeError):
        settings.timeout = 1  # type: ignore[misc]  # that it is read-only is what is tested
    assert settings == Settings.from_environ(dict(PLAIN))
