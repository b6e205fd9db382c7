from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.settings.reader import SettingReader


def reader(**environ: str) -> SettingReader:
    return SettingReader(environ, "APP_")


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (" a b\n", "a b"), ("", None), (" \t", None)])
def test_text_has_no_white_space_around_it_and_an_empty_one_counts_as_none(value: str, text: str | None) -> None:
    read = reader(APP_KEY=value)
    assert read.text("KEY") == text
    assert read.problems == []


@pytest.mark.parametrize("environ", [{}, {"APP_KEY": ""}, {"APP_KEY": "  "}])
def test_what_is_required_and_missing_is_a_problem(environ: dict[str, str]) -> None:
    read = reader(**environ)
    read.require("KEY", "the server asks for it")
    assert read.problems == ["APP_KEY is missing: the server asks for it"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://a.example/", "it must be https, or plain http to a loopback address"),
        ("https://user:s3cr3t@a.example/", "it has a user name or a password in it"),
        ("https://a.example/#s3cr3t", "it has a fragment"),
        ("https://a.example/?key=s3cr3t", "it has a query"),
        ("https://a.example?", "it has a query"),
    ],
)
def test_a_url_that_would_leak_a_secret_is_a_problem_that_does_not_repeat_it(url: str, problem: str) -> None:
    read = reader(APP_URL=url)
    read.url("URL")
    assert read.problems == [f"APP_URL is not usable: {problem}"]


def test_a_url_may_have_a_query_where_its_use_allows_it() -> None:
    read = reader(APP_URL="https://a.example/token?p=policy")
    assert read.url("URL", may_have_query=True) == "https://a.example/token?p=policy"
    assert read.problems == []


def test_a_choice_is_one_of_those_offered() -> None:
    read = reader(APP_KIND="b", APP_OTHER="B")
    assert read.choice("KIND", ("a", "b"), "a") == "b"
    assert read.choice("NONE", ("a", "b"), "a") == "a"
    assert read.problems == []
    assert read.choice("OTHER", ("a", "b"), "a") == "a"
    assert read.problems == ["APP_OTHER must be one of a, b"]


@pytest.mark.parametrize(("value", "seconds"), [("1", 1.0), ("0.5", 0.5), ("1e1", 10.0), ("60", 60.0), (" 7 ", 7.0)])
def test_a_number_lies_between_its_bounds(value: str, seconds: float) -> None:
    read = reader(APP_WAIT=value)
    assert read.number("WAIT", 30.0, least=0.5, most=60) == seconds
    assert read.problems == []


@pytest.mark.parametrize(
    "value", ["0", "-1", "60.1", "1e9", "nan", "inf", "-inf", "ten", "1s", "1,5", "0x1", "9" * 999]
)
def test_other_numbers_are_a_problem(value: str) -> None:
    read = reader(APP_WAIT=value)
    assert read.number("WAIT", 30.0, least=0.5, most=60) == 30
    assert read.problems == ["APP_WAIT must be a number from 0.5 to 60"]


def test_a_number_may_be_zero_where_that_has_a_meaning() -> None:
    read = reader(APP_WAIT="0", APP_LESS="-0.1")
    assert read.number("WAIT", 30.0, least=0, most=60) == 0
    assert read.number("NONE", 30.0, least=0, most=60) == 30
    assert read.problems == []
    assert read.number("LESS", 30.0, least=0, most=60) == 30
    assert read.problems == ["APP_LESS must be a number from 0 to 60"]


@pytest.mark.parametrize(("value", "number"), [("1", 1), ("100", 100), ("007", 7)])
def test_a_whole_number_lies_between_its_bounds(value: str, number: int) -> None:
    read = reader(APP_SIZE=value)
    assert read.number("SIZE", 50, least=1, most=100) == number
    assert read.number("NONE", 50, least=1, most=100) == 50
    assert read.problems == []


@pytest.mark.parametrize("value", ["0", "101", "-1", "1.0", "1e1", "many", "²", "9" * 9_999])
def test_other_whole_numbers_are_a_problem(value: str) -> None:
    read = reader(APP_SIZE=value)
    assert read.number("SIZE", 50, least=1, most=100) == 50
    assert read.problems == ["APP_SIZE must be a whole number from 1 to 100"]


REFERENCE = "@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/a b/?c#d)"


@pytest.mark.parametrize("reference", [REFERENCE, REFERENCE.lower(), f" {REFERENCE}", "@Microsoft.AppConfiguration(x)"])
def test_a_reference_that_is_not_resolved_is_one_problem_and_no_other(reference: str) -> None:
    read = reader(APP_KEY=reference)
    for _ in range(2):
        assert read.has("KEY")
        assert read.url("KEY") is None
        assert read.choice("KEY", ("a",), "a") == "a"
        assert read.number("KEY", 1.0, least=0.5, most=60) == 1
        assert read.number("KEY", 2, least=1, most=60) == 2
        read.require("KEY", "it is needed")
        assert read.text("KEY") is None
    assert read.problems == [
        (
            "APP_KEY is a reference that is not resolved: the secret does not exist, the app's identity may not read "
            "it, or the vault cannot be reached"
        )
    ]


@pytest.mark.parametrize("value", ["", "s3cr3t", "Microsoft.KeyVault(x)", "a @Microsoft.KeyVault(x)", "@Microsoft"])
def test_another_value_is_no_reference(value: str) -> None:
    read = reader(APP_KEY=value)
    assert read.text("KEY") == (value or None)
    assert read.problems == []


@given(st.text())
def test_no_value_raises(value: str) -> None:
    read = reader(APP_KEY=value)
    assert 0 < read.number("KEY", 1.0, least=0.5, most=60) <= 60
    assert 1 <= read.number("KEY", 1, least=1, most=60) <= 60
    assert read.choice("KEY", ("a",), "a") == "a"
    assert read.url("KEY") in {value.strip(), None}
    assert all(problem.startswith("APP_KEY ") for problem in read.problems)


KNOWN = {"CRM_API_URL", "CRM_API_TOKEN_URL", "CRM_API_CLIENT_ID", "CRM_API_CLIENT_SECRET", "CRM_API_TIMEOUT"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CRM_API_TOKENURL", "CRM_API_TOKEN_URL"),
        ("CRM_API_CLIENTID", "CRM_API_CLIENT_ID"),
        ("CRM_API_TIMEOT", "CRM_API_TIMEOUT"),
        ("CRM_API_TIMEOUTS", "CRM_API_TIMEOUT"),
        ("crm_api_token_url", "CRM_API_TOKEN_URL"),
        ("Crm_Api_Client_Secret", "CRM_API_CLIENT_SECRET"),
        ("CRMAPI_TOKEN_URL", "CRM_API_TOKEN_URL"),
        ("CRM_APIS_TIMEOUT", "CRM_API_TIMEOUT"),
    ],
)
def test_a_name_that_is_nearly_right_gets_a_suggestion(name: str, meant: str) -> None:
    read = SettingReader({name: "s3cr3t"}, "CRM_API_")
    read.suggest(KNOWN)
    assert read.problems == [f"{name} is not a setting: did you mean {meant}?"]


@pytest.mark.parametrize(
    "name",
    ["CRM_API_URL", "CRM_API_FOO", "CRM_API_", "ERP_API_TOKEN_URL", "CRN_API_URL", "TOKEN_URL", "CRM_APP_TIMEOUT"],
)
def test_a_name_that_is_right_or_another_ones_gets_none(name: str) -> None:
    read = SettingReader({name: "x"}, "CRM_API_")
    read.suggest(KNOWN, {"CRM_APP_TIMEOUT"})
    assert read.problems == []


def test_a_setting_that_is_there_may_stand_twice_by_a_slip() -> None:
    read = SettingReader({"CRM_API_TIMEOUT": "5", "CRM_API_TIMEOUTS": "x"}, "CRM_API_")
    read.suggest(KNOWN)
    assert read.problems == ["CRM_API_TIMEOUTS is not a setting: did you mean CRM_API_TIMEOUT?"]
