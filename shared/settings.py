"""The app settings, checked: every problem is reported at once, and no secret's value is ever shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

from shared.delivery.retry import RetryPolicy
from shared.errors import SettingsError
from shared.setting_reader import SettingReader

if TYPE_CHECKING:
    from collections.abc import Mapping

ClientAuthenticationMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]
# RFC 7591 section 2 names the methods.
CLIENT_AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
# What can name the source of tokens; exactly one does.
TOKEN_SOURCES = ("TOKEN_URL", "ISSUER", "TENANT_ID", "MANAGED_IDENTITY")
LookUp = Literal["always", "uncertain"]
DAY = 86_400.0
# The characters of 192 random bits in base64; shared/auth/token_cipher.py asks for as many.
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
    client_auth: ClientAuthenticationMethod
    client_certificate: str | None
    federated_token_file: str | None
    scope: str | None
    audience: str | None
    resource: str | None
    leeway: float
    default_lifetime: float


@dataclass(frozen=True, slots=True)
class TokenStoreSettings:
    """The store in which instances of a scaled-out app share tokens."""

    url: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How deliveries are retried, chunked, looked up and forgotten."""

    retry: RetryPolicy
    chunk: int
    history_days: float
    look_up: LookUp


@dataclass(frozen=True, slots=True)
class Settings:
    """All app settings for the API client called `name`. Times are seconds."""

    name: str
    api_url: str
    timeout: float
    max_connections: int
    token: TokenSettings
    token_store: TokenStoreSettings | None
    delivery: DeliverySettings

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], name: str = "BUSINESS_API") -> Settings:
        """Read the settings of the API client `name`; an empty value counts as none.

        Raises:
            SettingsError: anything is missing or wrong; it lists every problem, each with its setting's name.
        """
        client = SettingReader(environ, f"{name}_")
        common = SettingReader(environ, "", client.problems)
        api_url = client.url("URL", required=True)
        token = _token_settings(client)
        settings = cls(
            name=name,
            api_url=(api_url or "").rstrip("/"),
            timeout=client.seconds("TIMEOUT", 30, at_most=600),
            max_connections=client.whole_number("MAX_CONNECTIONS", 100, at_least=1, at_most=10_000),
            token=token,
            token_store=_token_store_settings(common),
            delivery=_delivery_settings(common),
        )
        if client.problems:
            raise SettingsError(client.problems)
        return settings


def _token_settings(read: SettingReader) -> TokenSettings:
    settings = TokenSettings(
        token_url=read.url("TOKEN_URL", may_have_query=True),  # RFC 6749 section 3.2
        issuer=read.url("ISSUER"),
        tenant_id=read.text("TENANT_ID"),
        managed_identity=read.text("MANAGED_IDENTITY"),
        client_id=read.text("CLIENT_ID"),
        client_secret=read.text("CLIENT_SECRET"),
        client_auth=cast(
            "ClientAuthenticationMethod",
            read.choice("CLIENT_AUTH", CLIENT_AUTHENTICATION_METHODS, "client_secret_basic"),
        ),
        client_certificate=read.text("CLIENT_CERTIFICATE"),
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
        _check_audience(read, "MANAGED_IDENTITY")
    elif settings.tenant_id:
        _check_entra(read)
    else:
        _check_client(read, settings)
    return settings


def _check_client(read: SettingReader, settings: TokenSettings) -> None:
    """A client of an RFC 6749 token endpoint has an id, and the credentials of its authentication method."""
    read.require("CLIENT_ID", "the token endpoint asks for it")
    if settings.client_auth == "private_key_jwt":
        if bool(settings.client_certificate) == bool(settings.federated_token_file):
            read.complain(
                f"{read.name('CLIENT_AUTH')}=private_key_jwt needs exactly one of {read.name('CLIENT_CERTIFICATE')} "
                f"and {read.name('FEDERATED_TOKEN_FILE')}",
            )
    else:
        read.require("CLIENT_SECRET", f"{read.name('CLIENT_AUTH')}={settings.client_auth} sends it")


def _check_entra(read: SettingReader) -> None:
    """A client of Microsoft Entra has an id, exactly one kind of credential, and something to ask a token for."""
    read.require("CLIENT_ID", f"{read.name('TENANT_ID')} is set")
    kinds = ("CLIENT_SECRET", "CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE")
    if sum(1 for kind in kinds if read.text(kind)) != 1:
        read.complain(
            f"{read.name('TENANT_ID')} is set, so exactly one of {', '.join(map(read.name, kinds))} is needed"
        )
    _check_audience(read, "TENANT_ID")


def _check_audience(read: SettingReader, source: str) -> None:
    """Microsoft Entra issues no token without knowing for what."""
    kinds = ("SCOPE", "RESOURCE", "AUDIENCE")
    if not any(read.text(kind) for kind in kinds):
        read.complain(f"{read.name(source)} is set, so one of {', '.join(map(read.name, kinds))} is needed")


def _token_store_settings(read: SettingReader) -> TokenStoreSettings | None:
    url, key = read.text("TOKEN_STORE_URL"), read.text("TOKEN_STORE_KEY")
    if url is None:
        return None
    if not url.startswith(("redis://", "rediss://", "unix://")):
        read.complain("TOKEN_STORE_URL must begin with redis://, rediss:// or unix://")
    if key is None:
        read.complain("TOKEN_STORE_KEY is missing: TOKEN_STORE_URL is set, and tokens are stored encrypted")
    elif len(key) < LEAST_KEY:
        read.complain(f"TOKEN_STORE_KEY must be a random text of at least {LEAST_KEY} characters")
    return TokenStoreSettings(url, key or "")


def _delivery_settings(read: SettingReader) -> DeliverySettings:
    retry = RetryPolicy(
        deadline=read.seconds("DELIVERY_DEADLINE", DAY, at_most=365 * DAY),
        first=read.seconds("DELIVERY_RETRY_FIRST", 1, at_most=DAY),
        max=read.seconds("DELIVERY_RETRY_MAX", 300, at_most=DAY),
    )
    if retry.first > retry.max:
        read.complain(
            f"DELIVERY_RETRY_FIRST ({retry.first:g} s) must not be more than DELIVERY_RETRY_MAX ({retry.max:g} s)"
        )
    return DeliverySettings(
        retry=retry,
        chunk=read.whole_number("DELIVERY_CHUNK", 100, at_least=1, at_most=1_000),
        history_days=read.seconds("DELIVERY_HISTORY_DAYS", 30, at_most=36_500),
        look_up=cast("LookUp", read.choice("DELIVERY_LOOK_UP", ("always", "uncertain"), "always")),
    )
