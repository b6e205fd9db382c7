"""What the partner is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sandbox.partner.faults import AnyFault


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerConfig:
    """How the partner behaves, from its start on.

    `client_public_key` is the PEM of a public key or of a certificate: with it the client may authenticate with
    `private_key_jwt`. `token_lifetime` is in seconds; `expires_in` says how a token answer names it. `scopes` are those
    that a client may ask for, None for any. `faults` are in force from the start, their randomness comes from `seed`.
    """

    client_id: str = "sandbox-client"
    client_secret: str = field(default="sandbox-secret", repr=False)
    client_public_key: str | None = None
    token_lifetime: int = 3600
    expires_in: Literal["number", "string", "omitted"] = "number"
    scopes: frozenset[str] | None = None
    idempotency: Literal["honour", "ignore"] = "honour"
    unique_external_id: bool = False
    faults: tuple[AnyFault, ...] = ()
    seed: int = 0
