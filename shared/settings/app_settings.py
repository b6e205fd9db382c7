"""The app settings: deliveries, the token store, each partner with its token grant, the way through proxies and TLS.

Whatever reads settings here raises a SettingsError that lists every problem.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, get_args
from urllib.parse import SplitResult, urlsplit

from shared.auth.client_credentials import ClientCredentials
from shared.auth.entra import Entra, ManagedIdentity
from shared.auth.token_endpoint import is_loopback
from shared.errors import SettingsError
from shared.rules.retry import DAY, MAX_DEADLINE, MAX_WAIT, NCRONTAB, RetryPolicy
from shared.settings.reader import SettingReader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

# The names of all settings that belong to no partner.
NAMES = {
    *("DELIVERY_DEADLINE", "DELIVERY_RETRY_FIRST", "DELIVERY_RETRY_MAX", "DELIVERY_SETTLE", "DELIVERY_CHUNK"),
    *("DELIVERY_HISTORY_DAYS", "DELIVERY_RECOVERY_SCHEDULE", "TOKEN_STORE_URL", "TOKEN_STORE_KEY"),
}
# The settings of a token grant, of any kind. `SOURCES` choose the kind: exactly one is set. `KEYS` are all that it
# reads. `server` is a URL of the server that it asks first, None for one that no proxy stands before. `is_shareable`
# says whether other processes may use the tokens. `request_token(transport)` is one token request.
GrantSettings = ClientCredentials | Entra | ManagedIdentity
# The first kind's settings are checked if no source is named.
GRANTS: tuple[type[GrantSettings], ...] = get_args(GrantSettings)
_OWN_KEYS = ("URL", "TIMEOUT", "MAX_CONNECTIONS", "RATE", "TOKEN_LEEWAY", "TOKEN_DEFAULT_LIFETIME")
# The names of all settings of a partner, without its own name in front.
KEYS = frozenset(_OWN_KEYS).union(*(kind.KEYS for kind in GRANTS))
_LEAST = 0.001  # of a number that must be over zero
# Characters of TOKEN_STORE_KEY: so many of base64 hold 192 random bits, of hexadecimal 128.
_LEAST_KEY = 32
_TLS_CHECKS = ("ssl_cert_reqs", "ssl_check_hostname")  # what turns redis-py's checks of a certificate off


@dataclass(frozen=True, slots=True)
class TokenStoreSettings:
    """The store in which instances of a scaled-out app share tokens."""

    url: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AppSettings:
    """How deliveries are retried, chunked and forgotten, and where tokens are shared.

    `settle` is the seconds a partner may take until a stored record shows up in a look-up.
    """

    retry: RetryPolicy
    settle: float
    chunk: int
    history_days: float
    token_store: TokenStoreSettings | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings."""
        read = SettingReader(environ)
        retry = RetryPolicy(
            deadline=read.number("DELIVERY_DEADLINE", DAY, least=_LEAST, most=MAX_DEADLINE),
            first=read.number("DELIVERY_RETRY_FIRST", 1.0, least=_LEAST, most=MAX_WAIT),
            max=read.number("DELIVERY_RETRY_MAX", 300.0, least=_LEAST, most=MAX_WAIT),
        )
        if retry.first > retry.max:
            read.complain("DELIVERY_RETRY_FIRST must not be more than DELIVERY_RETRY_MAX")
        if (schedule := read.text("DELIVERY_RECOVERY_SCHEDULE")) and not NCRONTAB.fullmatch(schedule):
            read.complain("DELIVERY_RECOVERY_SCHEDULE must be an NCRONTAB expression such as 0 */5 * * * *")
        settings = cls(
            retry=retry,
            settle=read.number("DELIVERY_SETTLE", 5.0, least=0, most=3600),
            chunk=read.number("DELIVERY_CHUNK", 50, least=1, most=1_000),
            history_days=read.number("DELIVERY_HISTORY_DAYS", 30.0, least=0.00001, most=36_500),
            token_store=_token_store(read),
        )
        read.suggest(NAMES)
        read.raise_problems()
        return settings


def _token_store(read: SettingReader) -> TokenStoreSettings | None:
    if not read.has("TOKEN_STORE_URL") and not read.has("TOKEN_STORE_KEY"):
        return None
    url = read.require("TOKEN_STORE_URL", "TOKEN_STORE_KEY is set")
    key = read.require("TOKEN_STORE_KEY", "TOKEN_STORE_URL is set, and tokens are stored encrypted")
    if url:
        parts = _parts(url)
        # Without a host in its place redis-py takes one of the query.
        is_plain = parts is not None and parts.scheme == "redis" and not is_loopback(parts.hostname or "")
        if parts is None or parts.scheme not in {"redis", "rediss", "unix"} or is_plain:
            read.complain("TOKEN_STORE_URL must be a rediss:// or unix:// URL, or redis:// to a loopback address")
        elif any(check in parts.query for check in _TLS_CHECKS):
            read.complain("TOKEN_STORE_URL must not say how the server's certificate is checked: it is")
    if key and len(key) < _LEAST_KEY:
        read.complain(f"TOKEN_STORE_KEY must be a random text of at least {_LEAST_KEY} characters")
    return TokenStoreSettings(url, key)


@dataclass(frozen=True, slots=True)
class PartnerSettings:
    """The settings of one partner. Times are seconds, `rate` is requests per second and process.

    `proxy` is the URL of the proxy on the way to the API, `token_proxy` of that to the token endpoint. `roots` are the
    arguments of `tls_context`.
    """

    url: str
    timeout: float
    max_connections: int
    rate: float | None
    token_leeway: float
    token_default_lifetime: float
    grant: GrantSettings
    proxy: str | None = field(repr=False)
    token_proxy: str | None = field(repr=False)
    roots: tuple[str | None, str | None] = (None, None)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], name: str, partner_names: Collection[str] = ()) -> Self:
        """Read the settings that begin with `name`. Those of the other `partner_names` are nobody's slip."""
        read = SettingReader(environ, f"{name}_")
        read.require("URL")
        sources = {source: kind for kind in GRANTS for source in kind.SOURCES}
        read.require_one_of([*sources], "there must be")
        kind = next((kind for source, kind in sources.items() if read.has(source)), GRANTS[0])
        grant = kind.from_settings(read)
        url = (read.url("URL") or "").rstrip("/")
        # Names in lower case are sorted last: they replace those in upper case, as everywhere.
        network = SettingReader({variable.upper(): environ[variable] for variable in sorted(environ)})
        network.problems = read.problems
        settings = cls(
            url=url,
            timeout=read.number("TIMEOUT", 30.0, least=_LEAST, most=600),
            max_connections=read.number("MAX_CONNECTIONS", 100, least=1, most=10_000),
            rate=read.number("RATE", 0.0, least=_LEAST, most=100_000) or None,
            token_leeway=read.number("TOKEN_LEEWAY", 60.0, least=0, most=DAY),
            token_default_lifetime=read.number("TOKEN_DEFAULT_LIFETIME", 300.0, least=_LEAST, most=DAY),
            grant=grant,
            proxy=proxy_for(url, network),
            token_proxy=proxy_for(grant.server or "", network),
            roots=(network.text("SSL_CERT_FILE"), network.text("SSL_CERT_DIR")),
        )
        try:
            if any(settings.roots):
                tls_context(*settings.roots)
        except SettingsError as exc:
            network.complain(*exc.problems)
        own = {read.name(key) for key in KEYS}
        others = {f"{other}_{key}" for other in partner_names if other != name for key in KEYS}
        for both in sorted(own & others):
            read.complain(f"{both} is a setting of two partners: rename one of them")
        read.suggest(own, others)
        read.raise_problems()
        return settings


def settings_problems(
    environ: Mapping[str, str], partner_names: Sequence[str], checked: Sequence[str] | None = None
) -> list[str]:
    """Return what is wrong with the settings of the app and of partners, one sentence for each problem.

    `checked` names the partners whose settings are checked, None for all of them.
    """
    problems: list[str] = []
    checks: list[Callable[[], object]] = [partial(AppSettings.from_environ, environ)]
    checks += [partial(PartnerSettings.from_environ, environ, name, partner_names) for name in checked or partner_names]
    for check in checks:
        try:
            check()
        except SettingsError as exc:
            problems += exc.problems
    return list(dict.fromkeys(problems))


def _parts(url: str) -> SplitResult | None:
    try:
        port = urlsplit(url).port
    except ValueError:
        return None
    return None if port == 0 else urlsplit(url)


def proxy_for(url: str, network: SettingReader) -> str | None:
    """Return the URL of the proxy that HTTPS_PROXY names for `url`, None if there is none or NO_PROXY excepts it."""
    parts = _parts(url)
    if parts is None or parts.scheme != "https":
        # Plain http is for a loopback address: no proxy is on the way to it, and none may read the access token.
        return None
    proxy, hosts = network.text("HTTPS_PROXY"), (parts.hostname or "", parts.netloc.lower())
    # A host, a domain above it, or all.
    excepted = [name.strip().lower().removeprefix(".") for name in (network.text("NO_PROXY") or "").split(",")]
    if proxy is None or any(each in {"*", host} or host.endswith(f".{each}") for each in excepted for host in hosts):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    parts = _parts(proxy)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        network.complain("HTTPS_PROXY must be an http or https URL")
    return proxy


@cache
def tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Return the TLS context that trusts a PEM file and a folder as c_rehash makes it, without either certifi's roots.

    It takes 40 to 90 ms to make.
    """
    if folder and not Path(folder).is_dir():
        raise SettingsError(["SSL_CERT_DIR is not a folder that can be read"])
    try:
        if file or folder:
            return ssl.create_default_context(cafile=file, capath=folder)
    except OSError:  # SSLError is one
        raise SettingsError(["SSL_CERT_FILE cannot be read, or holds no certificates in PEM form"]) from None
    import httpx  # noqa: PLC0415, the settings are read long before the first call

    return httpx.create_ssl_context(trust_env=False)
