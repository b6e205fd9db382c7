"""What the partner counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from sandbox.partner.faults import Route


class Counters(msgspec.Struct, kw_only=True):
    """Every request is counted when it arrives, and once more under its outcome when its answer is decided.

    An outcome is the status as text ("201"), at the token endpoint also "issued" or the `error` of RFC 6749; or
    "dropped" and "half" where the partner broke the connection, "client_gone" where the client did. The requests that
    are still under way are those of a route minus the sum of its outcomes.
    """

    token_requests: int = 0
    token_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    tokens_issued: int = 0
    discovery_requests: int = 0
    discovery_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    posts: int = 0
    post_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    lookups: int = 0
    lookup_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    # Requests to the API whose access token was missing, unknown, expired or revoked.
    unauthorised: int = 0
    # Those of them that had none at all. Counted as they arrive, whatever fault hits them.
    without_token: int = 0
    records_stored: int = 0
    # Records stored although one with the same external id was there.
    duplicates: int = 0
    # Answers given again for an Idempotency-Key that was seen before.
    replays: int = 0
    connections_dropped: int = 0
    clients_gone: int = 0
    # Requests to no route of the API.
    other_requests: int = 0

    def arrived(self, route: Route) -> None:
        """Count a request."""
        if route == "post":
            self.posts += 1
        elif route == "get":
            self.lookups += 1
        elif route == "token":
            self.token_requests += 1
        else:
            self.discovery_requests += 1

    def ended(self, route: Route, outcome: str) -> None:
        """Count a request's outcome."""
        if route == "post":
            self.post_outcomes[outcome] += 1
        elif route == "get":
            self.lookup_outcomes[outcome] += 1
        elif route == "token":
            self.token_outcomes[outcome] += 1
        else:
            self.discovery_outcomes[outcome] += 1
        if outcome in {"dropped", "half"}:
            self.connections_dropped += 1
        elif outcome == "client_gone":
            self.clients_gone += 1
