"""An access token as bytes that a shared store may hold: with its moments of expiry, encrypted."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.auth.access_token import AccessToken
from shared.errors import SettingsError

_MIN_KEY = 32  # characters: 32 of base64 or hexadecimal hold 128 bits and more
_VERSION = b"\x01"
_NONCE = 12  # bytes: NIST SP 800-38D section 8.2.2


@dataclass(frozen=True, slots=True)
class StoredToken:
    """An access token with its moments in POSIX seconds: all that processes with clocks of their own can share."""

    value: str = field(repr=False)
    issued_at: float
    expires_at: float
    refresh_at: float | None = None

    def at(self, now: float) -> AccessToken:
        """Give the access token as if it had been issued now."""
        refresh_in = None if self.refresh_at is None else max(0.0, self.refresh_at - now)
        return AccessToken(self.value, self.expires_at - now, refresh_in)


class TokenCipher:
    """Encrypts and decrypts stored tokens with AES-256-GCM; `key` is a secret text of 32 characters or more.

    What was encrypted under one `name` cannot be decrypted under another: no token can be moved to another request.
    """

    def __init__(self, key: str) -> None:
        if len(key) < _MIN_KEY:
            raise SettingsError([f"TOKEN_STORE_KEY must be a random text of at least {_MIN_KEY} characters"])
        derived = HKDF(SHA256(), 32, salt=None, info=b"business-relay token store").derive(key.encode())
        self._cipher = AESGCM(derived)

    def encrypt(self, name: str, token: StoredToken) -> bytes:
        """Give the bytes to store."""
        plain = json.dumps([token.value, token.issued_at, token.expires_at, token.refresh_at]).encode()
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, _VERSION + name.encode())

    def decrypt(self, name: str, stored: bytes) -> StoredToken:
        """Give the token in stored bytes.

        Raises:
            ValueError: they were not made by `encrypt` with the same key and name.
        """
        nonce, sealed = stored[1 : 1 + _NONCE], stored[1 + _NONCE :]
        if stored[:1] != _VERSION or len(nonce) < _NONCE:
            raise ValueError("not a stored token of this version")
        try:
            value, issued_at, expires_at, refresh_at = json.loads(
                self._cipher.decrypt(nonce, sealed, _VERSION + name.encode())
            )
        except InvalidTag:
            raise ValueError("not encrypted with this key for this request") from None
        if not all(math.isfinite(moment) for moment in (issued_at, expires_at, refresh_at or 0.0)):
            raise ValueError("a stored token with no moment of expiry")
        return StoredToken(value, issued_at, expires_at, refresh_at)
