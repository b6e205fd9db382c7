from __future__ import annotations

import pytest

from shared.errors import SettingsError
from shared.rules.retry import RetryPolicy
from shared.settings.app_settings import AppSettings, TokenStoreSettings

SECRET = "s3cr3t-value-of-more-than-32-characters"
KEY = {"TOKEN_STORE_KEY": "k" * 32}


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        AppSettings.from_environ(environ)
    assert SECRET not in str(caught.value)
    return list(caught.value.problems)


def test_every_setting_has_a_default() -> None:
    settings = AppSettings.from_environ({"DELIVERY_CHUNK": " "})
    assert settings == AppSettings(RetryPolicy(86_400, 1, 300), settle=5, chunk=50, history_days=30, token_store=None)


def test_reads_every_setting() -> None:
    environ = {
        "DELIVERY_DEADLINE": "60",
        "DELIVERY_RETRY_FIRST": "0.5",
        "DELIVERY_RETRY_MAX": "600",
        "DELIVERY_SETTLE": "0",
        "DELIVERY_CHUNK": " 7 ",
        "DELIVERY_HISTORY_DAYS": "0.5",
        "TOKEN_STORE_URL": "rediss://a",
        **KEY,
    }
    store = TokenStoreSettings("rediss://a", "k" * 32)
    assert AppSettings.from_environ(environ) == AppSettings(RetryPolicy(60, 0.5, 600), 0, 7, 0.5, store)


@pytest.mark.parametrize(
    ("setting", "raw", "rule"),
    [
        ("DELIVERY_DEADLINE", "0", "must be a number from 0.001 to 31536000"),
        ("DELIVERY_RETRY_FIRST", "x", "must be a number from 0.001 to 86400"),
        ("DELIVERY_RETRY_MAX", "86401", "must be a number from 0.001 to 86400"),
        ("DELIVERY_SETTLE", "-1", "must be a number from 0 to 3600"),
        ("DELIVERY_CHUNK", "1001", "must be a whole number from 1 to 1000"),
        ("DELIVERY_HISTORY_DAYS", "0", "must be a number from 1e-05 to 36500"),
        ("DELIVERY_RECOVERY_SCHEDULE", "often", "must be an NCRONTAB expression such as 0 */5 * * * *"),
    ],
)
def test_a_wrong_value_is_a_problem_that_names_its_setting(setting: str, raw: str, rule: str) -> None:
    assert problems(**{setting: raw}) == [f"{setting} {rule}"]


def test_the_first_wait_is_no_longer_than_the_last() -> None:
    found = problems(DELIVERY_RETRY_FIRST="10", DELIVERY_RETRY_MAX="9.5")
    assert found == ["DELIVERY_RETRY_FIRST must not be more than DELIVERY_RETRY_MAX"]


def test_a_token_store_needs_both_its_url_and_its_key() -> None:
    assert problems(**KEY) == ["TOKEN_STORE_URL is missing: TOKEN_STORE_KEY is set"]
    assert problems(TOKEN_STORE_URL=f"http://u:{SECRET}@a") == [
        "TOKEN_STORE_KEY is missing: TOKEN_STORE_URL is set, and tokens are stored encrypted",
        "TOKEN_STORE_URL must be a rediss:// or unix:// URL, or redis:// to a loopback address",
    ]
    assert problems(TOKEN_STORE_URL="rediss://a", TOKEN_STORE_KEY="k" * 31) == [
        "TOKEN_STORE_KEY must be a random text of at least 32 characters"
    ]


@pytest.mark.parametrize("url", ["redis://:p@localhost:6379/0", "redis://[::1]:6379", "unix:///run/redis.sock"])
def test_a_token_store_on_this_machine_needs_no_tls(url: str) -> None:
    store = AppSettings.from_environ({"TOKEN_STORE_URL": url, **KEY}).token_store
    assert store is not None
    assert store.url == url


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        *((f"redis://:{SECRET}@{host}", "must be a rediss:// or unix:// URL") for host in ("a.example", "10.0.0.4")),
        (f"redis://?host=cache.example&password={SECRET}", "must be a rediss:// or unix:// URL"),
        *((f"rediss://:{SECRET}@a:{port}/0", "must be a rediss:// or unix:// URL") for port in ("port", "65536", "0")),
        *((f"rediss://a?{query}", "must not say how") for query in ("ssl_cert_reqs=none", "db=1&ssl_check_hostname=")),
    ],
)
def test_a_token_store_that_would_leak_its_password_is_a_problem(url: str, rule: str) -> None:
    (problem,) = problems(TOKEN_STORE_URL=url, **KEY)
    assert problem.startswith(f"TOKEN_STORE_URL {rule}")


def test_a_reference_that_is_not_resolved_breaks_no_other_rule() -> None:
    reference = "@Microsoft.KeyVault(SecretUri=https://vault.example/a)"
    found = problems(TOKEN_STORE_URL=reference, TOKEN_STORE_KEY=reference, DELIVERY_CHUNK=reference)
    assert [problem.partition(" is a reference")[0] for problem in found] == [
        "DELIVERY_CHUNK",
        "TOKEN_STORE_URL",
        "TOKEN_STORE_KEY",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DELIVERY_DEADLNE", "DELIVERY_DEADLINE"),
        ("DELIVRY_DEADLINE", "DELIVERY_DEADLINE"),
        ("delivery_chunk", "DELIVERY_CHUNK"),
        ("DELIVERY_RETRYMAX", "DELIVERY_RETRY_MAX"),
    ],
)
def test_a_name_that_is_nearly_right_gets_a_suggestion(name: str, meant: str) -> None:
    assert problems(**{name: "1"}) == [f"{name} is not a setting: did you mean {meant}?"]


def test_no_secret_is_in_a_repr() -> None:
    environ = {"TOKEN_STORE_URL": f"rediss://:{SECRET}@a", "TOKEN_STORE_KEY": SECRET}
    assert SECRET not in repr(AppSettings.from_environ(environ))
