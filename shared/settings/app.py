"""The app settings, checked: every problem is reported at once, and no value is ever shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from shared.delivery.delivery_input import MAX_CHUNK, MAX_PARALLEL
from shared.delivery.retry import DAY, MAX_DEADLINE, MAX_WAIT, RetryPolicy
from shared.errors import SettingsError
from shared.setting_reader import SettingReader
from shared.token_settings import read_token_settings, read_token_store_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.token_settings import TokenSettings, TokenStoreSettings

LookUp = Literal["always", "uncertain"]


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
        token = read_token_settings(client)
        settings = cls(
            name=name,
            api_url=(api_url or "").rstrip("/"),
            timeout=client.seconds("TIMEOUT", 30, at_most=600),
            max_connections=client.whole_number("MAX_CONNECTIONS", 100, at_least=1, at_most=MAX_PARALLEL),
            token=token,
            token_store=read_token_store_settings(common),
            delivery=_delivery_settings(common),
        )
        if client.problems:
            raise SettingsError(client.problems)
        return settings


def _delivery_settings(read: SettingReader) -> DeliverySettings:
    retry = RetryPolicy(
        deadline=read.seconds("DELIVERY_DEADLINE", DAY, at_most=MAX_DEADLINE),
        first=read.seconds("DELIVERY_RETRY_FIRST", 1, at_most=MAX_WAIT),
        max=read.seconds("DELIVERY_RETRY_MAX", 300, at_most=MAX_WAIT),
    )
    if retry.first > retry.max:
        read.complain("DELIVERY_RETRY_FIRST must not be more than DELIVERY_RETRY_MAX")
    return DeliverySettings(
        retry=retry,
        chunk=read.whole_number("DELIVERY_CHUNK", 50, at_least=1, at_most=MAX_CHUNK),
        history_days=read.seconds("DELIVERY_HISTORY_DAYS", 30, at_most=36_500),
        look_up=cast("LookUp", read.choice("DELIVERY_LOOK_UP", ("always", "uncertain"), "always")),
    )
