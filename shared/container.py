"""The composition root: from the environment and `shared/partner.py` to the singletons that live across invocations.

Importing it does nothing. A partner's client is made on its first use, off the event loop. Valid settings are kept,
wrong ones are read again next time; a SettingsError lists every problem of the app and of all partners.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from shared import telemetry
from shared.client.admission import Admission
from shared.durable.activities import BatchRecords
from shared.durable.attempt import PartnerAccess
from shared.durable.durable_client import DurableClient, HostSession
from shared.durable.inputs import DeliveryOptions
from shared.durable.upkeep import Recovery
from shared.errors import SettingsError
from shared.http.intake import IntakeBudget
from shared.partner import RESOURCES
from shared.resource import check_resources
from shared.rules.flow import Flow
from shared.rules.retry import NCRONTAB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.client.resource_api import ResourceApi
    from shared.link import PartnerLink
    from shared.resource import Partner, Resource
    from shared.rules.flow import Snapshot
    from shared.settings.app_settings import AppSettings, PartnerSettings

logger = logging.getLogger(__name__)

# Seconds of TIMEOUT while a partner's settings are not valid.
_TIMEOUT = 30.0
_ENDS = {
    "delivered": telemetry.DELIVERIES_DELIVERED,
    "rejected": telemetry.DELIVERIES_REJECTED,
    "expired": telemetry.DELIVERIES_EXPIRED,
}


class Container:
    """Makes and keeps what the app needs, from the settings in `environ`. Its clients belong to one event loop.

    Raises:
        ResourceError: the resources cannot live in one app.
    """

    def __init__(self, environ: Mapping[str, str], resources: Sequence[Resource]) -> None:
        if resources:
            check_resources(resources)
        self.resources = tuple(resources)
        self.partners = {resource.partner.name: resource.partner for resource in resources}
        self.budget = IntakeBudget()
        self.batches = BatchRecords()
        self.recovery = Recovery(
            self.resources,
            lambda name: telemetry.process_telemetry().count(telemetry.DELIVERIES_REWOUND, {telemetry.RESOURCE: name}),
        )
        self._environ = environ
        self._settings: dict[str, PartnerSettings] = {}
        self._access: dict[str, PartnerAccess] = {}
        self._links: dict[str, asyncio.Task[PartnerLink]] = {}
        self._session = HostSession()
        self._is_started = False

    def start(self) -> None:
        """Set telemetry up, and log every problem of the settings; the first call of an invocation does it, once."""
        if self._is_started:
            return
        self._is_started = True
        telemetry.install_telemetry(self._environ)
        for problem in self._problems():
            logger.error("app setting not usable", extra={"reason": problem})

    @property
    def recovery_schedule(self) -> str:
        """The NCRONTAB expression by which failed deliveries are looked for; every five minutes unless set."""
        schedule = " ".join(self._environ.get("DELIVERY_RECOVERY_SCHEDULE", "").split())
        return schedule if NCRONTAB.fullmatch(schedule) else "0 */5 * * * *"

    def check_settings(self) -> None:
        """Check the settings of the app and of all partners."""
        for resource in self.resources:
            self.options(resource)

    @cached_property
    def app_settings(self) -> AppSettings:
        """The settings of deliveries."""
        from shared.settings.app_settings import AppSettings  # noqa: PLC0415, a seventh of the app's cold start

        try:
            return AppSettings.from_environ(self._environ)
        except SettingsError:
            raise SettingsError(self._problems()) from None

    def settings(self, partner: Partner) -> PartnerSettings:
        """Return the settings of a partner."""
        if partner.name not in self._settings:
            from shared.settings.app_settings import PartnerSettings  # noqa: PLC0415, the same

            try:
                settings = PartnerSettings.from_environ(self._environ, partner.name, self.partners)
            except SettingsError:
                raise SettingsError(self._problems(partner.name)) from None
            self._settings[partner.name] = settings
        return self._settings[partner.name]

    def _problems(self, *names: str, is_alone: bool = False) -> list[str]:
        from shared.settings.app_settings import settings_problems  # noqa: PLC0415, the same

        return settings_problems(self._environ, [*self.partners] or names, names if is_alone else None)

    def options(self, resource: Resource) -> DeliveryOptions:
        """Return the options with which a delivery begins."""
        app, partner = self.app_settings, self.settings(resource.partner)
        return DeliveryOptions.of_batch(app.retry, app.settle, app.chunk, partner.max_connections)

    def call_timeout(self, resource: Resource) -> float:
        """Return the seconds of one call to the partner of a resource; the default while its settings are not valid."""
        return self.access(resource.partner).timeout

    def durable_client(self, binding: str, invocation_id: str | None = None) -> DurableClient:
        """Return the client of one invocation from its binding of the type durableClient."""
        return DurableClient(binding, self._session, invocation_id)

    def access(self, partner: Partner) -> PartnerAccess:
        """Return what activities need of a partner: its client, its flow control, and the records under way."""
        if partner.name in self._access:
            return self._access[partner.name]

        async def api() -> ResourceApi:
            return (await self.link(partner)).api

        def report(snapshot: Snapshot) -> None:
            logger.info("partner limit changed", extra={"partner": partner.name, **snapshot})

        try:
            settings = self.settings(partner)
        except SettingsError:
            return PartnerAccess(api, Admission(Flow()), _TIMEOUT)  # no call is made, and they are read again next time
        admission = Admission(Flow(rate=settings.rate, most=settings.max_connections, on_change=report))
        process, attributes = telemetry.process_telemetry(), {telemetry.PARTNER: partner.name}
        process.observe(telemetry.FLOW_LIMIT, attributes, lambda: admission.snapshot()["limit"])
        process.observe(telemetry.FLOW_RATE, attributes, lambda: admission.snapshot()["rate"])
        process.observe(telemetry.FLOW_IN_FLIGHT, attributes, lambda: admission.snapshot()["in_flight"])
        access = PartnerAccess(api, admission, settings.timeout)
        self._access[partner.name] = access
        return access

    async def link(self, partner: Partner) -> PartnerLink:
        """Return the client of a partner; concurrent first calls make one."""
        task = self._links.get(partner.name)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            # Once more: what was wrong may have been mended.
            task = self._links[partner.name] = asyncio.create_task(self._build(partner))
        # The first caller may go away: the others still want their client.
        return await asyncio.shield(task)

    async def _build(self, partner: Partner) -> PartnerLink:
        settings, store = self.settings(partner), self.app_settings.token_store

        def build() -> PartnerLink:
            from shared.link import build_link  # noqa: PLC0415, httpx and all behind it, when they are first needed

            return build_link(partner, settings, store)

        # Importing httpx and making a TLS context take 200 ms, in which other invocations go on.
        return await asyncio.to_thread(build)

    async def probe(self, partner: Partner, *, asks: bool = True) -> None:
        """Check the settings of the app and of a partner; with `asks` see if it issues a token, and answers."""
        try:
            _ = self.app_settings, self.settings(partner)
        except SettingsError:
            raise SettingsError(self._problems(partner.name, is_alone=True)) from None
        if asks:
            await (await self.link(partner)).api.probe()

    def figures(self, name: str) -> dict[str, Any]:
        """Return the flow and the tokens of the partner of this name, as they are now in this process."""
        counts = telemetry.process_telemetry().token_counts(name)
        tokens = {"calls": counts["hit"] + counts["joined"], "requested": counts["requested"]}
        if name not in self._access:
            return {"tokens": tokens}
        flow: dict[str, Any] = {**self._access[name].turns.snapshot()}
        flow["inFlight"] = flow.pop("in_flight")
        return {"flow": flow, "tokens": tokens}

    def count_end(self, resource: Resource, output: Mapping[str, Any], seconds: float) -> None:
        """Count what became of the records of a delivery that has ended, `seconds` after it began."""
        process, attributes = telemetry.process_telemetry(), _attributes(resource)
        if "total" in output:
            counts = {**output, "delivered": output["created"] + output["exists"]}
        else:
            counts = {output["state"]: 1}
        for state, metric in _ENDS.items():
            if count := counts.get(state):
                process.count(metric, attributes, count)
        process.record(telemetry.DELIVERY_DURATION, seconds, attributes)

    def observe_backlog(self, found: Mapping[str, tuple[int, float]]) -> None:
        """Have the deliveries under way, as counted now, read whenever metrics are collected."""
        process = telemetry.process_telemetry()
        for resource in self.resources:
            attributes = _attributes(resource)
            counts = [found.get(name, (0, 0.0)) for name in (resource.deliver, resource.deliver_batch)]
            process.observe(telemetry.DELIVERIES_WAITING, attributes, partial(float, sum(count for count, _ in counts)))
            process.observe(telemetry.DELIVERY_OLDEST, attributes, partial(float, max(age for _, age in counts)))

    async def aclose(self) -> None:
        """Close the connections; a client that is still being made is not finished."""
        tasks = [*self._links.values()]
        self._links.clear()
        for task in tasks:
            task.cancel()
        for made in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(made, BaseException):
                await made.aclose()
        await self._session.aclose()


def _attributes(resource: Resource) -> dict[str, str]:
    return {telemetry.PARTNER: resource.partner.name, telemetry.RESOURCE: resource.name}


container = Container(os.environ, RESOURCES)
