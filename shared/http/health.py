"""The health of the app: for anybody whether its settings are valid, for operators what is wrong with which partner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shared.errors import ApiUnavailableError, SettingsError, TokenError, TokenRejectedError
from shared.http.intake import flag
from shared.http.request import Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from shared.http.request import Request

_NO_STORE = {"cache-control": "no-store"}


def get_health(check_settings: Callable[[], None]) -> Reply:
    """Say whether the settings are valid, and nothing else: anybody may ask."""
    try:
        check_settings()
    except SettingsError:
        return Reply.json(503, {"status": "unavailable"}, _NO_STORE)
    return Reply.json(200, {"status": "ok"}, _NO_STORE)


async def get_deep_health(
    request: Request,
    probes: Mapping[str, Callable[[], Awaitable[None]]],
    figures: Callable[[str], dict[str, Any]],
) -> Reply:
    """Say of each partner whether its settings are valid, a token can be had, and it answers.

    Each of `probes` asks one partner: it raises SettingsError, TokenError or ApiUnavailableError. `figures` returns its
    flow and its tokens as they are now. With `?probe=false` nobody is asked.

    Raises:
        ProblemError: 400, `probe` is neither true nor false.
    """
    if flag(request, "probe", default=True):
        found = await asyncio.gather(*(_outcome_of(probe) for probe in probes.values()))
    else:
        found = [{"settings": "ok"} for _ in probes]
    partners = {name: health | figures(name) for name, health in zip(probes, found, strict=True)}
    is_well = all("detail" not in health for health in partners.values())
    status = "ok" if is_well else "unavailable"
    return Reply.json(200 if is_well else 503, {"status": status, "partners": partners}, _NO_STORE)


async def _outcome_of(probe: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Return what one probe found; the server's own words stay in the log."""
    try:
        await probe()
    except SettingsError as exc:
        return {"settings": "unavailable", "detail": "; ".join(exc.problems)}
    except TokenRejectedError as exc:
        detail = f"The token endpoint refuses this app ({exc.error}): check its client id and credentials."
        return {"settings": "ok", "token": "unavailable", "detail": detail}
    except TokenError as exc:
        return {"settings": "ok", "token": "unavailable", "detail": str(exc)}
    except ApiUnavailableError as exc:
        return {"settings": "ok", "token": "ok", "partner": "unavailable", "detail": str(exc)}
    return {"settings": "ok", "token": "ok", "partner": "ok"}
