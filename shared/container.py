"""The composition root: from the environment to the singletons that live across invocations.

Nothing happens at import. A client is made on its first use, off the event loop where it can be, and belongs to the
loop that made it: another loop (tests have many) gets another. A second API is a second name:

    async def crm_api() -> BusinessApi:
        return await container.business_api("CRM_API")

with the settings CRM_API_URL, CRM_API_TOKEN_URL and so on.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from shared.delivery.batch_records import BatchRecords
from shared.delivery.partner_gate import PartnerGate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.api.business_api import BusinessApi
    from shared.client import Client
    from shared.settings import Settings

DEFAULT_NAME = "BUSINESS_API"


class Container:
    """Makes and keeps what the app needs, from the settings in `environ`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.gate = PartnerGate()
        self.batches = BatchRecords()
        self._environ = environ
        self._settings: dict[str, Settings] = {}
        self._exports_telemetry: bool | None = None
        self._clients: dict[asyncio.AbstractEventLoop, dict[str, asyncio.Task[Client]]] = {}

    def settings(self, name: str = DEFAULT_NAME) -> Settings:
        """Give the settings of the API client `name`; valid ones are kept, wrong ones are read again next time.

        Raises:
            SettingsError: it lists everything that is missing or wrong.
        """
        settings = self._settings.get(name)
        if settings is None:
            self._export_telemetry()
            settings = self._settings[name] = _read_settings(self._environ, name)
        return settings

    async def business_api(self, name: str = DEFAULT_NAME) -> BusinessApi:
        """Give the one API client of that name; concurrent first calls make one.

        Raises:
            SettingsError: it lists everything that is missing or wrong.
        """
        return (await self._client(name)).api

    async def check_token(self, name: str = DEFAULT_NAME) -> None:
        """See to it that the settings are valid and an access token can be had.

        Raises:
            SettingsError: it lists everything that is missing or wrong.
            TokenError: no access token can be had.
        """
        await (await self._client(name)).provider.get_token()

    async def aclose(self) -> None:
        """Close the clients of the running loop; one that is still being made is not finished."""
        tasks = list(self._clients.pop(asyncio.get_running_loop(), {}).values())
        for task in tasks:
            task.cancel()
        for made in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(made, BaseException):
                await made.aclose()

    async def _client(self, name: str) -> Client:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # What belongs to a closed loop is of no use to anybody.
            self._clients = {kept: clients for kept, clients in self._clients.items() if not kept.is_closed()}
        clients = self._clients.setdefault(loop, {})
        task = clients.get(name)
        if task is None:
            task = clients[name] = asyncio.create_task(self._create(name))
            task.add_done_callback(lambda done: _forget_failure(clients, name, done))
        # The first caller may go away: the others still want their client.
        return task.result() if task.done() else await asyncio.shield(task)

    async def _create(self, name: str) -> Client:
        settings = self.settings(name)
        # Importing httpx and making a TLS context take 200 ms, in which other invocations go on.
        return await asyncio.to_thread(_build_client, settings, self._environ)

    def _export_telemetry(self) -> None:
        """Set telemetry up, once: every function of the app asks for settings before it has something to tell."""
        if self._exports_telemetry is None:
            from shared.telemetry_export import export_telemetry  # noqa: PLC0415, not for a cold start

            self._exports_telemetry = export_telemetry(self._environ)


def _forget_failure(clients: dict[str, asyncio.Task[Client]], name: str, task: asyncio.Task[Client]) -> None:
    """Let the next call try again: what was wrong may have been mended."""
    if task.cancelled() or task.exception() is not None:
        clients.pop(name, None)


def _build_client(settings: Settings, environ: Mapping[str, str]) -> Client:
    from shared.client import build_client  # noqa: PLC0415, httpx and all behind it are imported when they are first needed

    return build_client(settings, environ)


def _read_settings(environ: Mapping[str, str], name: str) -> Settings:
    from shared.settings import Settings  # noqa: PLC0415, a seventh of what the app adds to a cold start

    return Settings.from_environ(environ, name)


container = Container(os.environ)
