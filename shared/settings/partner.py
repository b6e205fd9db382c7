"""The app settings that say how access tokens are had and where they are shared, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import parse_qs, urlsplit

from shared.auth.token_endpoint import is_loopback

if TYPE_CHECKING:
    from shared.setting_reader import SettingReader

ClientAuthenticationMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]
# RFC 7591 section 2 names the methods.
CLIENT_AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
# What can name the source of tokens; exactly one does.
TOKEN_SOURCES = ("TOKEN_URL", "ISSUER", "TENANT_ID", "MANAGED_IDENTITY")
SYSTEM_IDENTITY = "system"
DAY = 86_400.0
_SECRETS = ("CLIENT_SECRET", "CLIENT_SECRET_FILE")
_KEYS = ("CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")  # a GUID or a domain name
# What turns redis-py's checks of a certificate off.
_TLS_CHECKS = ("ssl_cert_reqs", "ssl_check_hostname")
# The characters of 192 random bits in base64; shared/auth/token_store.py asks for as many.
LEAST_KEY = 32


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """How access tokens for one API are had. Exactly one of the first four is set."""

    token_url: str | None
    issuer: str | None
    tenant_id: str | None
    managed_identity: str | None
    client_id: str | None
    client_secret: str | None = field(repr=False)
    client_secret_file: str | None
    client_auth: ClientAuthenticationMethod
    client_certificate: str | None
    client_key_id: str | None
    federated_token_file: str | None
    scope: str | None
    audience: str | None
    resource: str | None
    leeway: float
    default_lifetime: float

    @property
    def is_system_identity(self) -> bool:
        """Whether tokens are those of the identity that the platform gives to this app alone."""
        return self.managed_identity == SYSTEM_IDENTITY


@dataclass(frozen=True, slots=True)
class TokenStoreSettings:
    """The store in which instances of a scaled-out app share tokens."""

    url: str = field(repr=False)
    key: str = field(repr=False)


def read_token_settings(read: SettingReader) -> TokenSettings:
    """Give the settings on tokens; what is missing, wrong or contradictory is a problem of the reader's."""
    identity = read.text("MANAGED_IDENTITY")
    settings = TokenSettings(
        token_url=read.url("TOKEN_URL", may_have_query=True),  # RFC 6749 section 3.2
        issuer=read.url("ISSUER"),
        tenant_id=read.text("TENANT_ID"),
        managed_identity=SYSTEM_IDENTITY if identity and identity.lower() == SYSTEM_IDENTITY else identity,
        client_id=read.text("CLIENT_ID"),
        client_secret=read.text("CLIENT_SECRET"),
        client_secret_file=read.text("CLIENT_SECRET_FILE"),
        client_auth=cast(
            "ClientAuthenticationMethod",
            read.choice("CLIENT_AUTH", CLIENT_AUTHENTICATION_METHODS, "client_secret_basic"),
        ),
        client_certificate=read.text("CLIENT_CERTIFICATE"),
        client_key_id=read.text("CLIENT_KEY_ID"),
        federated_token_file=read.text("FEDERATED_TOKEN_FILE"),
        scope=read.text("SCOPE"),
        audience=read.text("AUDIENCE"),
        resource=read.text("RESOURCE"),
        leeway=read.seconds("TOKEN_LEEWAY", 60, at_most=DAY, may_be_zero=True),
        default_lifetime=read.seconds("TOKEN_DEFAULT_LIFETIME", 300, at_most=DAY),
    )
    named = [source for source in TOKEN_SOURCES if read.text(source)]
    if len(named) != 1:
        read.complain(
            "exactly one of "
            + ", ".join(read.name(source) for source in TOKEN_SOURCES)
            + " is needed"
            + (f", not {len(named)}: " + ", ".join(read.name(source) for source in named) if named else ""),
        )
    elif settings.managed_identity:
        _check_identity(read, settings)
    elif settings.tenant_id:
        _check_entra(read, settings)
    else:
        _check_client(read, settings)
    return settings


def _check_client(read: SettingReader, settings: TokenSettings) -> None:
    """A client of an RFC 6749 token endpoint has an id, and the credentials of its authentication method."""
    read.require("CLIENT_ID", "the token endpoint asks for it")
    method = f"{read.name('CLIENT_AUTH')}={settings.client_auth}"
    if settings.client_auth == "private_key_jwt":
        _check_one_of(read, _KEYS, f"{method} needs")
        if settings.client_key_id and settings.federated_token_file:
            read.complain(f"{read.name('CLIENT_KEY_ID')} is of no use: whoever signs the federated token names its key")
        return
    _check_one_of(read, _SECRETS, f"{method} needs")
    for unused in (*_KEYS, "CLIENT_KEY_ID"):
        if read.text(unused):
            read.complain(f"{read.name(unused)} is set, which {method} does not use: private_key_jwt does")


def _check_entra(read: SettingReader, settings: TokenSettings) -> None:
    """A client of Microsoft Entra has an id, exactly one kind of credential, and something to ask a token for."""
    if not read.is_unresolved("TENANT_ID") and not _TENANT.fullmatch(settings.tenant_id or ""):
        read.complain(f"{read.name('TENANT_ID')} must be a GUID or a domain name")
    read.require("CLIENT_ID", f"{read.name('TENANT_ID')} is set")
    _check_one_of(read, _SECRETS + _KEYS, f"{read.name('TENANT_ID')} is set, which needs")
    _check_audience(read, "TENANT_ID")


def _check_identity(read: SettingReader, settings: TokenSettings) -> None:
    """A managed identity has no credential of its own, and one resource to ask a token for."""
    if settings.client_id:
        read.complain(
            f"{read.name('CLIENT_ID')} is set, which a managed identity does not use: "
            f"{read.name('MANAGED_IDENTITY')} is the client id of a user-assigned one"
        )
    _check_audience(read, "MANAGED_IDENTITY")
    if not settings.resource and not settings.audience and len((settings.scope or "").split()) > 1:
        read.complain(f"{read.name('SCOPE')} must be one scope: a managed identity asks for one resource")


def _check_one_of(read: SettingReader, kinds: tuple[str, ...], need: str) -> None:
    count = sum(1 for kind in kinds if read.text(kind))
    if count != 1:
        names = ", ".join(map(read.name, kinds))
        read.complain(f"{need} exactly one of {names}" + (f", not {count}" if count else ""))


def _check_audience(read: SettingReader, source: str) -> None:
    """Microsoft Entra issues no token without knowing for what."""
    kinds = ("SCOPE", "RESOURCE", "AUDIENCE")
    if not any(read.text(kind) for kind in kinds):
        read.complain(f"{read.name(source)} is set, so one of {', '.join(map(read.name, kinds))} is needed")


def read_token_store_settings(read: SettingReader) -> TokenStoreSettings | None:
    """Give the settings of the token store, None where there is none; what is wrong is a problem of the reader's."""
    url, key = read.text("TOKEN_STORE_URL"), read.text("TOKEN_STORE_KEY")
    if url is None:
        return None
    if not read.is_unresolved("TOKEN_STORE_URL") and (problem := _store_problem(url)):
        read.complain(f"TOKEN_STORE_URL {problem}")
    if key is None:
        read.complain("TOKEN_STORE_KEY is missing: TOKEN_STORE_URL is set, and tokens are stored encrypted")
    elif len(key) < LEAST_KEY and not read.is_unresolved("TOKEN_STORE_KEY"):
        read.complain(f"TOKEN_STORE_KEY must be a random text of at least {LEAST_KEY} characters")
    return TokenStoreSettings(url, key or "")


def _store_problem(url: str) -> str | None:
    """Say what keeps the URL of a Redis from being used, None where nothing does; the words repeat nothing of it."""
    if not url.startswith(("redis://", "rediss://", "unix://")):
        return "must begin with rediss://, unix://, or redis:// to a loopback address"
    try:
        parts = urlsplit(url)
        is_usable = parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        return "must have a port from 1 to 65535, or none"
    # Without a host in its place redis-py takes one of the query.
    if parts.scheme == "redis" and not is_loopback(parts.hostname or ""):
        return "must begin with rediss://, plain redis:// is for a loopback address: the password would go in clear"
    if any(name in parse_qs(parts.query, keep_blank_values=True) for name in _TLS_CHECKS):
        return "must not say how the server's certificate is checked: it is"
    return None
