"""The composition root: from the environment and `shared/partner.py` to the singletons that live across invocations.

Importing it does nothing. A partner's client is made on its first use, off the event loop, and belongs to the loop that
made it: another loop gets another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

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
from shared.telemetry import (
    DELIVERIES_DELIVERED,
    DELIVERIES_EXPIRED,
    DELIVERIES_REJECTED,
    DELIVERIES_REWOUND,
    DELIVERIES_WAITING,
    DELIVERY_DURATION,
    DELIVERY_OLDEST,
    FLOW_IN_FLIGHT,
    FLOW_LIMIT,
    FLOW_RATE,
    PARTNER,
    RESOURCE,
    process_telemetry,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.client.resource_api import ResourceApi
    from shared.link import PartnerLink
    from shared.resource import Partner, Resource
    from shared.rules.flow import Snapshot
    from shared.settings.app_settings import AppSettings, PartnerSettings

logger = logging.getLogger(__name__)

RECOVERY_SCHEDULE = "DELIVERY_RECOVERY_SCHEDULE"
_EVERY_FIVE_MINUTES = "0 */5 * * * *"
_NCRONTAB = re.compile(r"\S+( \S+){4,5}")
_TIMEOUT = 30.0
"""Seconds of a call while a partner's settings are not valid: the default."""


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
            self.resources, lambda name: process_telemetry().count(DELIVERIES_REWOUND, {RESOURCE: name})
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
        from shared.telemetry.export import install_telemetry  # noqa: PLC0415, not for a cold start

        install_telemetry(self._environ)
        for problem in self._problems():
            logger.error("app setting not usable", extra={"reason": problem})

    @property
    def recovery_schedule(self) -> str:
        """The NCRONTAB expression by which failed deliveries are looked for; every five minutes unless set."""
        schedule = " ".join(self._environ.get(RECOVERY_SCHEDULE, "").split())
        return schedule if _NCRONTAB.fullmatch(schedule) else _EVERY_FIVE_MINUTES

    def check_settings(self) -> None:
        """Check the settings of the app and of all partners.

        Raises:
            SettingsError: it lists every problem.
        """
        if self._app is None or len(self._settings) < len(self.partners):
            if problems := self._problems():
                raise SettingsError(problems)
            for partner in self.partners.values():
                self.settings(partner)

    def app_settings(self) -> AppSettings:
        """Return the settings of deliveries; valid ones are kept, wrong ones are read again next time.

        Raises:
            SettingsError: it lists every problem, those of the partners too.
        """
        if self._app is None:
            from shared.settings.app_settings import AppSettings  # noqa: PLC0415, not for a cold start

            try:
                self._app = AppSettings.from_environ(self._environ)
            except SettingsError:
                raise SettingsError(self._problems()) from None
        return self._app

    def settings(self, partner: Partner) -> PartnerSettings:
        """Return the settings of a partner; valid ones are kept, wrong ones are read again next time.

        Raises:
            SettingsError: it lists every problem of the partner, and of the app.
        """
        settings = self._settings.get(partner.name)
        if settings is None:
            from shared.settings.app_settings import PartnerSettings, settings_problems  # noqa: PLC0415, the same

            names = list(self.partners) or [partner.name]
            try:
                settings = PartnerSettings.from_environ(self._environ, partner.name, names)
            except SettingsError:
                raise SettingsError(settings_problems(self._environ, names)) from None
            self._settings[partner.name] = settings
        return settings

    def options(self, resource: Resource) -> DeliveryOptions:
        """Return the options with which a delivery begins.

        Raises:
            SettingsError: it lists every problem.
        """
        app, partner = self.app_settings(), self.settings(resource.partner)
        return DeliveryOptions.of_batch(app.retry, app.settle, app.chunk, partner.max_connections)

    def call_timeout(self, resource: Resource) -> float:
        """Return the seconds of one call to the partner of a resource; the default while its settings are not valid."""
        try:
            return self.settings(resource.partner).timeout
        except SettingsError:
            return _TIMEOUT

    def durable_client(self, binding: str, invocation_id: str | None = None) -> DurableClient:
        """Return the client of one invocation from its binding of the type durableClient."""
        return DurableClient(binding, self._loop().session, invocation_id)

    def batches(self) -> BatchRecords:
        """Return the records of the batches that this process works on."""
        return self._loop().batches

    def access(self, partner: Partner) -> PartnerAccess:
        """Return what activities need of a partner: its client, its flow control, and the records under way."""
        loop = self._loop()
        access = loop.access.get(partner.name)
        if access is None:
            try:
                settings: PartnerSettings | None = self.settings(partner)
            except SettingsError:
                settings = None

            def report(snapshot: Snapshot) -> None:
                logger.info("partner limit changed", extra={"partner": partner.name, **snapshot})

            async def api() -> ResourceApi:
                return (await self.link(partner)).api

            flow = Flow(
                rate=settings.rate if settings else None,
                most=settings.max_connections if settings else 64,
                on_change=report,
            )
            admission = Admission(flow)
            access = PartnerAccess(
                api,
                admission,
                settings.timeout if settings else _TIMEOUT,
                lambda: admission.snapshot()["limit"],
            )
            if settings is not None:
                # Until they are valid, a partner's settings are read again each time.
                loop.access[partner.name] = access
                _observe(partner, admission)
        return access

    async def link(self, partner: Partner) -> PartnerLink:
        """Return the client of a partner on this event loop; concurrent first calls make one.

        Raises:
            SettingsError: it lists everything that is missing or wrong.
        """
        links = self._loop().links
        task = links.get(partner.name)
        if task is None:
            task = links[partner.name] = asyncio.create_task(self._create(partner))
            task.add_done_callback(lambda done: _forget_failure(links, partner.name, done))
        # The first caller may go away: the others still want their client.
        return task.result() if task.done() else await asyncio.shield(task)

    async def api(self, partner: Partner) -> ResourceApi:
        """Return the API client of a partner.

        Raises:
            SettingsError: it lists everything that is missing or wrong.
        """
        return (await self.link(partner)).api

    async def probe(self, partner: Partner) -> None:
        """See whether the settings of a partner are valid, a token can be had, and it answers.

        Raises:
            SettingsError, TokenError, ApiUnavailableError: what is not so.
        """
        await (await self.link(partner)).probe()

    def figures(self, name: str) -> dict[str, Any]:
        """Return the flow and the tokens of the partner of this name, as they are now in this process."""
        access = self._loop().access.get(name)
        figures: dict[str, Any] = {}
        if access is not None and isinstance(access.turns, Admission):
            flow = access.turns.snapshot()
            figures["flow"] = {
                "state": flow["state"],
                "limit": flow["limit"],
                "rate": flow["rate"],
                "inFlight": flow["in_flight"],
                "waiting": flow["waiting"],
            }
        counts = process_telemetry().token_counts(name)
        figures["tokens"] = {"calls": counts.hit + counts.joined, "requested": counts.requested}
        return figures

    def count_end(self, resource: Resource, output: Mapping[str, Any], seconds: float) -> None:
        """Count what became of the records of a delivery that has ended, `seconds` after it began."""
        telemetry = process_telemetry()
        attributes = {PARTNER: resource.partner.name, RESOURCE: resource.name}
        if "total" in output:
            delivered, rejected, expired = (
                output["created"] + output["exists"],
                output["rejected"],
                output["expired"],
            )
        else:
            delivered, rejected, expired = (output["state"] == state for state in ("delivered", "rejected", "expired"))
        for metric, count in (
            (DELIVERIES_DELIVERED, delivered),
            (DELIVERIES_REJECTED, rejected),
            (DELIVERIES_EXPIRED, expired),
        ):
            if count:
                telemetry.count(metric, attributes, int(count))
        telemetry.record(DELIVERY_DURATION, seconds, attributes)

    def observe_backlog(self, found: Mapping[str, tuple[int, float]]) -> None:
        """Have the deliveries under way, as counted now, read whenever metrics are collected."""
        telemetry = process_telemetry()
        for resource in self.resources:
            attributes = {PARTNER: resource.partner.name, RESOURCE: resource.name}
            counts = [found.get(name, (0, 0.0)) for name in (resource.deliver, resource.deliver_batch)]
            telemetry.observe(DELIVERIES_WAITING, attributes, partial(float, sum(count for count, _ in counts)))
            telemetry.observe(DELIVERY_OLDEST, attributes, partial(float, max(age for _, age in counts)))

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

    def _problems(self) -> list[str]:
        from shared.settings.app_settings import settings_problems  # noqa: PLC0415, a seventh of the app's cold start

        problems = settings_problems(self._environ, list(self.partners))
        schedule = self._environ.get(RECOVERY_SCHEDULE, "").strip()
        if schedule and " ".join(schedule.split()) != self.recovery_schedule:
            problems.append(f"{RECOVERY_SCHEDULE} must be an NCRONTAB expression such as {_EVERY_FIVE_MINUTES}")
        return problems

    def _loop(self) -> _Loop:
        running = asyncio.get_running_loop()
        loop = self._loops.get(running)
        if loop is None:
            # What belongs to a closed loop is of no use to anybody.
            self._loops = {kept: state for kept, state in self._loops.items() if not kept.is_closed()}
            loop = self._loops[running] = _Loop()
        return loop

    async def _create(self, partner: Partner) -> PartnerLink:
        settings, store = self.settings(partner), self.app_settings().token_store
        # Importing httpx and making a TLS context take 200 ms, in which other invocations go on.
        return await asyncio.to_thread(_build_link, partner, settings, store, self._environ)


def _forget_failure(links: dict[str, asyncio.Task[PartnerLink]], name: str, task: asyncio.Task[PartnerLink]) -> None:
    """Let the next call try again: what was wrong may have been mended."""
    if task.cancelled() or task.exception() is not None:
        links.pop(name, None)


def _build_link(*arguments: Any) -> PartnerLink:  # noqa: ANN401, those of build_link
    from shared.link import build_link  # noqa: PLC0415, httpx and all behind it are imported when they are first needed

    return build_link(*arguments)


def _observe(partner: Partner, admission: Admission) -> None:
    """Have the flow of a partner read whenever metrics are collected."""
    telemetry, attributes = process_telemetry(), {PARTNER: partner.name}
    telemetry.observe(FLOW_LIMIT, attributes, lambda: admission.snapshot()["limit"])
    telemetry.observe(FLOW_RATE, attributes, lambda: admission.snapshot()["rate"])
    telemetry.observe(FLOW_IN_FLIGHT, attributes, lambda: admission.snapshot()["in_flight"])


container = Container(os.environ, RESOURCES)
