"""The app settings: deliveries, the token store, each partner with its token grant, the way through proxies and TLS."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, get_args
from urllib.parse import parse_qs, urlsplit

from shared.auth.client_credentials import ClientCredentials
from shared.auth.entra import Entra, ManagedIdentity
from shared.auth.token_endpoint import is_loopback
from shared.errors import SettingsError
from shared.rules.retry import DAY, MAX_DEADLINE, MAX_WAIT, RetryPolicy
from shared.settings.reader import SettingReader, is_reference, reference_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

MAX_CHUNK = 1_000
"""The most records that one activity of a batch delivers: all of a batch."""

MAX_CONNECTIONS = 10_000
"""The most connections to one partner's API."""

LEAST_KEY = 32
"""Characters of TOKEN_STORE_KEY: so many of base64 hold 192 random bits, of hexadecimal 128."""

NAMES = (
    *("DELIVERY_DEADLINE", "DELIVERY_RETRY_FIRST", "DELIVERY_RETRY_MAX", "DELIVERY_SETTLE", "DELIVERY_CHUNK"),
    *("DELIVERY_HISTORY_DAYS", "TOKEN_STORE_URL", "TOKEN_STORE_KEY"),
)
"""The names of all settings that belong to no partner."""

GrantSettings = ClientCredentials | Entra | ManagedIdentity
"""The settings of a token grant, of any kind.

`SOURCES` are the settings that choose the kind: exactly one is set. `KEYS` are all that it reads. `server` is a URL of
the server that it asks first, None for one that no proxy stands before. `is_shareable` says whether other processes may
use the tokens. `build(client)` returns the grant.
"""

# The first kind's settings are checked if no source is named.
GRANTS: tuple[type[GrantSettings], ...] = get_args(GrantSettings)

_OWN_KEYS = ("URL", "TIMEOUT", "MAX_CONNECTIONS", "RATE", "TOKEN_LEEWAY", "TOKEN_DEFAULT_LIFETIME")
KEYS = tuple(dict.fromkeys([*_OWN_KEYS, *(key for kind in GRANTS for key in kind.KEYS)]))
"""The names of all settings of a partner, without its own name in front."""

_TLS_CHECKS = ("ssl_cert_reqs", "ssl_check_hostname")  # what turns redis-py's checks of a certificate off
_making_tls = threading.Lock()


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
        """Read the settings.

        Raises:
            SettingsError: it lists every problem.
        """
        read = SettingReader(environ)
        retry = RetryPolicy(
            deadline=read.seconds("DELIVERY_DEADLINE", DAY, at_most=MAX_DEADLINE),
            first=read.seconds("DELIVERY_RETRY_FIRST", 1, at_most=MAX_WAIT),
            max=read.seconds("DELIVERY_RETRY_MAX", 300, at_most=MAX_WAIT),
        )
        if retry.first > retry.max:
            read.complain("DELIVERY_RETRY_FIRST must not be more than DELIVERY_RETRY_MAX")
        settings = cls(
            retry=retry,
            settle=read.seconds("DELIVERY_SETTLE", 5, at_most=3600, may_be_zero=True),
            chunk=read.whole_number("DELIVERY_CHUNK", 50, at_least=1, at_most=MAX_CHUNK),
            history_days=read.seconds("DELIVERY_HISTORY_DAYS", 30, at_most=36_500),
            token_store=_token_store(read),
        )
        read.suggest(NAMES, ("DELIVERY_", "TOKEN_STORE_"))
        read.raise_problems()
        return settings


def _token_store(read: SettingReader) -> TokenStoreSettings | None:
    url, key = read.text("TOKEN_STORE_URL"), read.text("TOKEN_STORE_KEY")
    if url is None and key is None:
        return None
    read.require("TOKEN_STORE_URL", "TOKEN_STORE_KEY is set")
    read.require("TOKEN_STORE_KEY", "TOKEN_STORE_URL is set, and tokens are stored encrypted")
    if (checked := read.checked_text("TOKEN_STORE_URL")) and (problem := _store_problem(checked)):
        read.complain(f"TOKEN_STORE_URL {problem}")
    if (checked := read.checked_text("TOKEN_STORE_KEY")) and len(checked) < LEAST_KEY:
        read.complain(f"TOKEN_STORE_KEY must be a random text of at least {LEAST_KEY} characters")
    return TokenStoreSettings(url or "", key or "")


def _store_problem(url: str) -> str | None:
    """Say what keeps the URL of a Redis from being used, None if nothing does; the words repeat nothing of it."""
    if not url.startswith(("redis://", "rediss://", "unix://")):
        return "must begin with rediss://, unix://, or redis:// to a loopback address"
    if not _has_valid_port(url):
        return "must have a port from 1 to 65535, or none"
    parts = urlsplit(url)
    # Without a host in its place redis-py takes one of the query.
    if parts.scheme == "redis" and not is_loopback(parts.hostname or ""):
        return "must begin with rediss://, plain redis:// is for a loopback address: the password would go in clear"
    if any(name in parse_qs(parts.query, keep_blank_values=True) for name in _TLS_CHECKS):
        return "must not say how the server's certificate is checked: it is"
    return None


def _has_valid_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class PartnerSettings:
    """The settings of the partner `name`. Times are seconds, `rate` is requests per second and process.

    `proxy` is the URL of the proxy on the way to the API, `token_proxy` of that to the token endpoint.
    """

    name: str
    url: str
    timeout: float
    max_connections: int
    rate: float | None
    token_leeway: float
    token_default_lifetime: float
    grant: GrantSettings
    proxy: str | None = field(repr=False)
    token_proxy: str | None = field(repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], name: str, partner_names: Collection[str] = ()) -> Self:
        """Read the settings that begin with `name`. Those of the other `partner_names` are nobody's slip.

        Raises:
            SettingsError: it lists every problem.
        """
        read = SettingReader(environ, f"{name}_")
        read.require("URL")
        sources = {source: kind for kind in GRANTS for source in kind.SOURCES}
        read.require_one_of([*sources], "there must be")
        kind = next((kind for source, kind in sources.items() if read.text(source)), GRANTS[0])
        grant = kind.from_settings(read)
        url = (read.url("URL") or "").rstrip("/")
        settings = cls(
            name=name,
            url=url,
            timeout=read.seconds("TIMEOUT", 30, at_most=600),
            max_connections=read.whole_number("MAX_CONNECTIONS", 100, at_least=1, at_most=MAX_CONNECTIONS),
            rate=read.number("RATE", at_most=100_000),
            token_leeway=read.seconds("TOKEN_LEEWAY", 60, at_most=DAY, may_be_zero=True),
            token_default_lifetime=read.seconds("TOKEN_DEFAULT_LIFETIME", 300, at_most=DAY),
            grant=grant,
            proxy=_proxy(read, url, environ),
            token_proxy=_proxy(read, grant.server or "", environ),
        )
        for other in partner_names:
            # Only a name that begins with the other can have settings in common with it.
            if other != name and f"{other}_".startswith(f"{name}_"):
                for shared in {read.name(key) for key in KEYS} & {f"{other}_{key}" for key in KEYS}:
                    read.complain(f"{shared} is a setting of both {name} and {other}: rename one of the partners")
        others = []
        for other in (f"{other}_" for other in partner_names if other != name):
            # A prefix of this partner's own prefix tells nothing; the whole names of its settings do.
            others += [other + key for key in KEYS] if read.name("").startswith(other) else [other]
        read.suggest([read.name(key) for key in KEYS], (read.name(""),), others)
        read.raise_problems()
        return settings


def _proxy(read: SettingReader, url: str, environ: Mapping[str, str]) -> str | None:
    try:
        return proxy_for(url, environ)
    except SettingsError as exc:
        for problem in exc.problems:
            read.complain(problem)
        return None


def settings_problems(environ: Mapping[str, str], partner_names: Sequence[str]) -> list[str]:
    """Return what is wrong with the settings of the app and of all partners, one sentence for each problem."""
    problems: list[str] = []
    checks: list[Callable[[], object]] = [partial(AppSettings.from_environ, environ)]
    checks += [partial(PartnerSettings.from_environ, environ, name, partner_names) for name in partner_names]
    if any(environ.get(name, "").strip() for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")):
        checks.append(partial(tls_context, environ))
    for check in checks:
        try:
            check()
        except SettingsError as exc:
            problems += exc.problems
    return list(dict.fromkeys(problems))


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy that HTTPS_PROXY names for `url`, None if there is none or NO_PROXY excepts it.

    Names in lower case go before those in upper case, as everywhere.

    Raises:
        SettingsError: HTTPS_PROXY is no http or https URL, or the platform has not resolved it.
    """
    try:
        parts = urlsplit(url)
        hosts = {parts.hostname or "", parts.netloc.lower()}
    except ValueError:  # a problem of the setting that holds the URL
        return None
    if parts.scheme != "https":
        # Plain http is for a loopback address: no proxy is on the way to it, and none may read the access token.
        return None
    # Upper case is sorted before lower case, which therefore stays.
    named = {name.lower(): text.strip() for name, text in sorted(environ.items())}
    proxy = named.get("https_proxy")
    if not proxy or _is_excepted(hosts, named.get("no_proxy", "")):
        return None
    if is_reference(proxy):
        raise SettingsError([reference_problem("HTTPS_PROXY")])
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not (_has_valid_port(proxy) and urlsplit(proxy).scheme in {"http", "https"} and urlsplit(proxy).hostname):
        raise SettingsError(["HTTPS_PROXY must be an http or https URL"])
    return proxy


def _is_excepted(hosts: set[str], no_proxy: str) -> bool:
    """Return whether NO_PROXY names one of `hosts`, a domain above it, or all ("*")."""
    names = [name.strip().lower().removeprefix(".") for name in no_proxy.split(",")]
    return any(name in {"*", host} or (name and host.endswith("." + name)) for name in names for host in hosts)


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return the process's one TLS context for these settings, which takes 40 to 90 ms to make.

    It trusts the roots of certifi. SSL_CERT_FILE (a PEM file) and SSL_CERT_DIR (a folder as c_rehash makes it) replace
    them.

    Raises:
        SettingsError: one of the two is not there, cannot be read, or holds no certificate.
    """
    file, folder = environ.get("SSL_CERT_FILE", "").strip(), environ.get("SSL_CERT_DIR", "").strip()
    problems = []
    if file:
        try:
            Path(file).open("rb").close()
        except OSError as exc:
            problems.append(f"SSL_CERT_FILE names a file that cannot be read: {exc.strerror}")
    if folder:
        try:
            next(Path(folder).iterdir(), None)
        except OSError as exc:
            problems.append(f"SSL_CERT_DIR names a folder that cannot be read: {exc.strerror}")
    if problems:
        raise SettingsError(problems)
    with _making_tls:  # two clients may be built at once
        return _make_tls_context(file or None, folder or None)


@cache
def _make_tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    if file or folder:
        try:
            return ssl.create_default_context(cafile=file, capath=folder)
        except OSError:  # SSLError is one
            raise SettingsError(["SSL_CERT_FILE holds no certificates in PEM form"]) from None
    import httpx  # noqa: PLC0415, the settings are read long before the first call

    return httpx.create_ssl_context(trust_env=False)
