from __future__ import annotations

import ssl
import traceback
from typing import TYPE_CHECKING

import pytest

from shared.errors import SettingsError
from shared.settings.app_settings import PartnerSettings, tls_context
from tests.fakes.certificates import certificate_pem, rsa_key

if TYPE_CHECKING:
    from pathlib import Path

API = "https://api.partner.example:8443/v1"
SETTINGS = {"CRM_MANAGED_IDENTITY": "system", "CRM_SCOPE": "a"}


def proxy_for(url: str, environ: dict[str, str]) -> str | None:
    return PartnerSettings.from_environ(SETTINGS | environ | {"CRM_URL": url}, "CRM").proxy


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:2"}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": " http://p:1 "}, "http://p:1"),
        ({"HTTPS_PROXY": "http://upper:1", "https_proxy": "http://lower:1"}, "http://lower:1"),
        ({"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:1"}, "http://lower:1"),
        ({"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ({"HTTPS_PROXY": "https://user:pass@p:1"}, "https://user:pass@p:1"),
    ],
)
def test_the_proxy_is_the_one_that_the_environment_names(environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for(API, environ) == proxy


@pytest.mark.parametrize(
    "names",
    [
        "*",
        "api.partner.example",
        "API.Partner.Example",
        "partner.example",
        ".partner.example",
        "other, example",
        "api.partner.example:8443",
    ],
)
@pytest.mark.parametrize("setting", ["NO_PROXY", "no_proxy"])
def test_no_proxy_excepts_a_host_its_domain_or_all(names: str, setting: str) -> None:
    assert proxy_for(API, {"HTTPS_PROXY": "http://p:1", setting: names}) is None


@pytest.mark.parametrize("names", ["", ",", "pi.partner.example", "artner.example", "x.api.partner.example", "a:8443"])
def test_other_names_in_no_proxy_except_nothing(names: str) -> None:
    assert proxy_for(API, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": names}) == "http://p:1"


@pytest.mark.parametrize("url", ["http://127.0.0.1:8081", "http://localhost", "http://[::1]:1/"])
def test_plain_http_goes_through_no_proxy(url: str) -> None:
    assert proxy_for(url, {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"}) is None


def test_a_proxy_that_the_platform_has_not_resolved_is_a_problem_of_its_own() -> None:
    with pytest.raises(SettingsError, match="HTTPS_PROXY is a reference that is not resolved") as caught:
        proxy_for(API, {"HTTPS_PROXY": "@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/proxy)"})
    assert "vault.example" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://u:s3cr3t@p:1", "http://", "http://u:s3cr3t@p:port", "http://[p", "//p"])
def test_what_is_no_proxy_is_a_problem_that_does_not_repeat_it(proxy: str) -> None:
    with pytest.raises(SettingsError, match="HTTPS_PROXY must be an http or https URL") as caught:
        proxy_for(API, {"HTTPS_PROXY": proxy})
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_the_tls_context_is_made_once_and_checks_certificates() -> None:
    context = tls_context(None, None)
    assert tls_context(None, None) is context
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) > 50


def test_a_file_of_certificates_replaces_the_built_in_roots(tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    file.write_bytes(certificate_pem(rsa_key()))
    context = tls_context(str(file), None)
    assert len(context.get_ca_certs()) == 1
    assert tls_context(str(file), None) is context
    assert tls_context(None, str(tmp_path)).get_ca_certs() == []


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_a_problem(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "roots.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="SSL_CERT_FILE cannot be read, or holds no certificates in PEM form"):
        proxy_for(API, {"SSL_CERT_FILE": str(file)})


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SSL_CERT_DIR is not a folder"):
        proxy_for(API, {"SSL_CERT_DIR": str(tmp_path / "none")})
