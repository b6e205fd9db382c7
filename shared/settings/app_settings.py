"""The settings of the whole app: deliveries, and the store in which its processes share tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

from shared.auth.token_endpoint import is_loopback
from shared.errors import SettingsError
from shared.rules.retry import DAY, MAX_DEADLINE, MAX_WAIT, RetryPolicy
from shared.settings.reader import SettingReader

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CHUNK = 1_000
"""The most records that one activity of a batch delivers: all of a batch."""

NAMES = (
    "DELIVERY_DEADLINE",
    "DELIVERY_RETRY_FIRST",
    "DELIVERY_RETRY_MAX",
    "DELIVERY_SETTLE",
    "DELIVERY_CHUNK",
    "DELIVERY_HISTORY_DAYS",
    "TOKEN_STORE_URL",
    "TOKEN_STORE_KEY",
)
# What turns redis-py's checks of a certificate off.
_TLS_CHECKS = ("ssl_cert_reqs", "ssl_check_hostname")
LEAST_KEY = 32
"""Characters of TOKEN_STORE_KEY: so many of base64 hold 192 random bits, of hexadecimal 128."""


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
        if read.problems:
            raise SettingsError(read.problems)
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
