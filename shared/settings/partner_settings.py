"""The settings of one partner: where its API is, how fast it may be called, and how its access tokens are requested."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self, get_args

from shared.auth.client_credentials import ClientCredentials
from shared.auth.entra import Entra, ManagedIdentity
from shared.errors import SettingsError
from shared.settings.app_settings import AppSettings
from shared.settings.network import proxy_for, tls_context
from shared.settings.reader import SettingReader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

MAX_CONNECTIONS = 10_000
"""The most connections to one partner's API."""

_DAY = 86_400.0


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
        grant = _grant(read)
        url = (read.url("URL") or "").rstrip("/")
        settings = cls(
            name=name,
            url=url,
            timeout=read.seconds("TIMEOUT", 30, at_most=600),
            max_connections=read.whole_number("MAX_CONNECTIONS", 100, at_least=1, at_most=MAX_CONNECTIONS),
            rate=read.number("RATE", at_most=100_000),
            token_leeway=read.seconds("TOKEN_LEEWAY", 60, at_most=_DAY, may_be_zero=True),
            token_default_lifetime=read.seconds("TOKEN_DEFAULT_LIFETIME", 300, at_most=_DAY),
            grant=grant,
            proxy=_proxy(read, url, environ),
            token_proxy=_proxy(read, grant.server, environ),
        )
        others = []
        for other in (f"{other}_" for other in partner_names if other != name):
            # A prefix of this partner's own prefix tells nothing; the whole names of its settings do.
            others += [other + key for key in KEYS] if read.name("").startswith(other) else [other]
        read.suggest([read.name(key) for key in KEYS], (read.name(""),), others)
        if read.problems:
            raise SettingsError(read.problems)
        return settings


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


def _grant(read: SettingReader) -> GrantSettings:
    """Pick the grant by the source that is named."""
    sources = [source for kind in GRANTS for source in kind.SOURCES]
    named = [source for source in sources if read.text(source)]
    read.require_one_of(sources, "there must be")
    return next((kind for kind in GRANTS if set(kind.SOURCES) & set(named)), GRANTS[0]).from_settings(read)


def _proxy(read: SettingReader, url: str | None, environ: Mapping[str, str]) -> str | None:
    if url is None:
        return None
    try:
        return proxy_for(url, environ)
    except SettingsError as exc:
        for problem in exc.problems:
            read.complain(problem)
        return None
