"""TLS for a server on 127.0.0.1, and the file by which its client trusts it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.certificates import certificate_pem, key_pem

if TYPE_CHECKING:
    from pathlib import Path


def tls_server(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Give the server's context, and the PEM file of the authority that its client must trust."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    trusted, own = folder / "trusted.pem", folder / "server.pem"
    trusted.write_bytes(certificate_pem(authority))
    own.write_bytes(certificate_pem(key, authority) + key_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    return context, trusted
