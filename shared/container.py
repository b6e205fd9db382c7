"""The composition root: from the environment and `shared/partner.py` to the singletons that live across invocations.

Importing it does nothing. A partner's client is made on its first use, off the event loop, and belongs to the loop that
made it: another loop gets another one. Valid settings are kept, wrong ones are read again next time; a SettingsError
lists every problem of the app and of all partners.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, field
from functools import partial
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

# While a partner's settings are not valid: the defaults of TIMEOUT (s) and MAX_CONNECTIONS.
_TIMEOUT, _MAX_CONNECTIONS = 30.0, 100
_ENDS = {
    "delivered": telemetry.DELIVERIES_DELIVERED,
    "rejected": telemetry.DELIVERIES_REJECTED,
    "expired": telemetry.DELIVERIES_EXPIRED,
}


@dataclass(slots=True)
class _Loop:
    """What belongs to one event loop, and is released with it."""

    links: dict[str, asyncio.Task[PartnerLink]] = field(default_factory=dict)
    access: dict[str, PartnerAccess] = field(default_factory=dict)
    batches: BatchRecords = field(default_factory=BatchRecords)
    session: HostSession = field(default_factory=HostSession)


class Container:
    """Makes and keeps what the app needs, from the settings in `environ`.

    Raises:
        ResourceError: the resources cannot live in one app.
    """

    def __init__(self, environ: Mapping[str, str], resources: Sequence[Resource]) -> None:
        if resources:
            check_resources(resources)
        self.resources = tuple(resources)
        self.partners = {resource.partner.name: resource.partner for resource in resources}
        self.budget = IntakeBudget()
        self.recovery = Recovery(
            self.resources,
            lambda name: telemetry.process_telemetry().count(telemetry.DELIVERIES_REWOUND, {telemetry.RESOURCE: name}),
        )
        self._environ = environ
        self._app: AppSettings | None = None
        self._settings: dict[str, PartnerSettings] = {}
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
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
        self.app_settings()
        for partner in self.partners.values():
            self.settings(partner)

    def app_settings(self) -> AppSettings:
        """Return the settings of deliveries."""
        if self._app is None:
            from shared.settings.app_settings import AppSettings  # noqa: PLC0415, a seventh of the app's cold start

            try:
                self._app = AppSettings.from_environ(self._environ)
            except SettingsError:
                raise SettingsError(self._problems()) from None
        return self._app

    def settings(self, partner: Partner) -> PartnerSettings:
        """Return the settings of a partner."""
        settings = self._settings.get(partner.name)
        if settings is None:
            from shared.settings.app_settings import PartnerSettings  # noqa: PLC0415, the same

            try:
                settings = PartnerSettings.from_environ(self._environ, partner.name, self.partners)
            except SettingsError:
                raise SettingsError(self._problems(partner.name)) from None
            self._settings[partner.name] = settings
        return settings

    def _problems(self, *names: str) -> list[str]:
        from shared.settings.app_settings import settings_problems  # noqa: PLC0415, the same

        return settings_problems(self._environ, [*self.partners] or names)

    def options(self, resource: Resource) -> DeliveryOptions:
        """Return the options with which a delivery begins."""
        app, partner = self.app_settings(), self.settings(resource.partner)
        return DeliveryOptions.of_batch(app.retry, app.settle, app.chunk, partner.max_connections)

    def call_timeout(self, resource: Resource) -> float:
        """Return the seconds of one call to the partner of a resource; the default while its settings are not valid."""
        return self.access(resource.partner).timeout

    def durable_client(self, binding: str, invocation_id: str | None = None) -> DurableClient:
        """Return the client of one invocation from its binding of the type durableClient."""
        return DurableClient(binding, self._loop().session, invocation_id)

    def batches(self) -> BatchRecords:
        """Return the records of the batches that this process works on."""
        return self._loop().batches

    def access(self, partner: Partner) -> PartnerAccess:
        """Return what activities need of a partner: its client, its flow control, and the records under way."""
        kept = self._loop().access
        if partner.name in kept:
            return kept[partner.name]
        timeout, rate, most = _TIMEOUT, None, _MAX_CONNECTIONS
        try:
            settings = self.settings(partner)
        except SettingsError:
            kept = {}  # they are read again each time
        else:
            timeout, rate, most = settings.timeout, settings.rate, settings.max_connections

        async def api() -> ResourceApi:
            return (await self.link(partner)).api

        def report(snapshot: Snapshot) -> None:
            logger.info("partner limit changed", extra={"partner": partner.name, **snapshot})

        admission = Admission(Flow(rate=rate, most=most, on_change=report))
        kept[partner.name] = PartnerAccess(api, admission, timeout)
        process, attributes = telemetry.process_telemetry(), {telemetry.PARTNER: partner.name}
        process.observe(telemetry.FLOW_LIMIT, attributes, lambda: admission.snapshot()["limit"])
        process.observe(telemetry.FLOW_RATE, attributes, lambda: admission.snapshot()["rate"])
        process.observe(telemetry.FLOW_IN_FLIGHT, attributes, lambda: admission.snapshot()["in_flight"])
        return kept[partner.name]

    async def link(self, partner: Partner) -> PartnerLink:
        """Return the client of a partner on this event loop; concurrent first calls make one."""
        links = self._loop().links
        task = links.get(partner.name)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            # Once more: what was wrong may have been mended.
            task = links[partner.name] = asyncio.create_task(self._build(partner))
        # The first caller may go away: the others still want their client.
        return await asyncio.shield(task)

    async def _build(self, partner: Partner) -> PartnerLink:
        settings, store = self.settings(partner), self.app_settings().token_store

        def build() -> PartnerLink:
            from shared.link import build_link  # noqa: PLC0415, httpx and all behind it, when they are first needed

            return build_link(partner, settings, store)

        # Importing httpx and making a TLS context take 200 ms, in which other invocations go on.
        return await asyncio.to_thread(build)

    async def probe(self, partner: Partner) -> None:
        """See whether a token can be had and the partner answers, as `PartnerLink.probe` does."""
        await (await self.link(partner)).probe()

    def figures(self, name: str) -> dict[str, Any]:
        """Return the flow and the tokens of the partner of this name, as they are now in this process."""
        access, counts = self._loop().access.get(name), telemetry.process_telemetry().token_counts(name)
        tokens = {"calls": counts["hit"] + counts["joined"], "requested": counts["requested"]}
        if access is None or not isinstance(access.turns, Admission):
            return {"tokens": tokens}
        flow: dict[str, Any] = {**access.turns.snapshot()}
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
        """Close what belongs to the running loop; a client that is still being made is not finished."""
        loop = self._loops.pop(asyncio.get_running_loop(), _Loop())
        tasks = list(loop.links.values())
        for task in tasks:
            task.cancel()
        for made in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(made, BaseException):
                await made.aclose()
        await loop.session.aclose()

    def _loop(self) -> _Loop:
        running = asyncio.get_running_loop()
        if running not in self._loops:
            # What belongs to a closed loop is of no use to anybody.
            self._loops = {loop: state for loop, state in self._loops.items() if not loop.is_closed()}
            self._loops[running] = _Loop()
        return self._loops[running]


def _attributes(resource: Resource) -> dict[str, str]:
    return {telemetry.PARTNER: resource.partner.name, telemetry.RESOURCE: resource.name}


container = Container(os.environ, RESOURCES)
