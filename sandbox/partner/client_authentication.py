"""How a client proves at the token endpoint who it is (RFC 6749 section 2.3)."""

from __future__ import annotations

import base64
import binascii
from hmac import compare_digest
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote_plus

from sandbox.partner.client_assertion import ASSERTION_TYPE, assertion_fault, public_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.partner.call import Call
    from sandbox.partner.config import PartnerConfig

ClientAuth: TypeAlias = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]


class TokenRequestError(Exception):
    """The token request is refused; `error` is the code of RFC 6749 section 5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description


def authenticate(call: Call, form: Mapping[str, str], config: PartnerConfig, seen_assertions: set[str]) -> ClientAuth:
    """Give the method by which the client has proved to be the configured one.

    Raises:
        TokenRequestError: it has not ("invalid_client"), or it used two methods at once ("invalid_request").
    """
    authorization = call.header(b"authorization")
    methods = [authorization is not None, "client_secret" in form, "client_assertion" in form]
    if sum(methods) > 1:
        raise TokenRequestError("invalid_request", "More than one way of client authentication is used")
    if authorization is not None:
        client_id, secret = _basic_credentials(authorization)
        if form.get("client_id", client_id) != client_id:
            raise TokenRequestError("invalid_request", "client_id is not the one of the Authorization header")
        _check_secret(client_id, secret, config)
        return "client_secret_basic"
    if "client_secret" in form:
        _check_secret(form.get("client_id", ""), form["client_secret"], config)
        return "client_secret_post"
    if "client_assertion" in form:
        _check_assertion(call, form, config, seen_assertions)
        return "private_key_jwt"
    raise TokenRequestError("invalid_client", "No client authentication")


def _basic_credentials(authorization: str) -> tuple[str, str]:
    """Give client id and secret, form-decoded as RFC 6749 section 2.3.1 says."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise TokenRequestError("invalid_client", f"The authentication scheme {scheme!r} is not supported")
    try:
        credentials = base64.b64decode(encoded.strip(), validate=True).decode()
        client_id, colon, secret = credentials.partition(":")
        if not colon:
            raise ValueError("no colon")  # noqa: TRY301 - one message for all that is malformed
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (ValueError, binascii.Error) as exc:
        raise TokenRequestError("invalid_client", "The Basic credentials are malformed") from exc


def _check_secret(client_id: str, secret: str, config: PartnerConfig) -> None:
    known = compare_digest(client_id.encode(), config.client_id.encode())
    if not compare_digest(secret.encode(), config.client_secret.encode()) or not known:
        raise TokenRequestError("invalid_client", "Unknown client or wrong secret")


def _check_assertion(call: Call, form: Mapping[str, str], config: PartnerConfig, seen_assertions: set[str]) -> None:
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise TokenRequestError("invalid_request", f"client_assertion_type must be {ASSERTION_TYPE}")
    if config.client_public_key is None:
        raise TokenRequestError("invalid_client", "No public key is configured for the client")
    if form.get("client_id", config.client_id) != config.client_id:
        raise TokenRequestError("invalid_client", "Unknown client")
    fault = assertion_fault(
        form["client_assertion"],
        client_id=config.client_id,
        key=public_key(config.client_public_key),
        audiences=(call.base_url, f"{call.base_url}/auth/token"),
        seen=seen_assertions,
    )
    if fault is not None:
        raise TokenRequestError("invalid_client", fault)
