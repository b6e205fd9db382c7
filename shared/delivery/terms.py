"""The terms of a delivery: an orchestrator may not read settings, and keeps those it began with, in its input."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.settings import DeliverySettings, Settings

# One activity works through so many chunks. More would save turns of the orchestrator, but last longer: where every
# look-up and post takes all of its 30 s, five chunks take half of `functionTimeout`.
CHUNKS_OF_AN_ORDER = 5


def terms(delivery: DeliverySettings) -> dict[str, object]:
    """Give the terms of one record's delivery."""
    return {"retry": delivery.retry.to_json(), "lookUp": delivery.look_up}


def batch_terms(settings: Settings) -> dict[str, object]:
    """Give the terms of a batch: no more chunks at a time than there are connections for."""
    chunk = settings.delivery.chunk
    parallel = max(1, settings.max_connections // chunk)
    return {**terms(settings.delivery), "chunk": chunk, "parallel": parallel, "order": CHUNKS_OF_AN_ORDER * chunk}
