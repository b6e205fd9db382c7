"""The partner's token endpoint and its discovery document, apart from faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from sandbox.partner.answers import Answer
from sandbox.partner.client_authentication import TokenRequestError, algorithms, authenticate, public_key
from sandbox.partner.faults import Cached

if TYPE_CHECKING:
    from sandbox.partner.call import Call
    from sandbox.partner.state import PartnerConfig

TOKEN_PATH = "/auth/token"  # noqa: S105, a path
DISCOVERY_PATH = "/.well-known/openid-configuration"
# RFC 6749 section 3.3: tokens of visible ASCII without " and \, one space between them.
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
# RFC 8707 section 2 lets a request name several resources, RFC 8693 section 2.1 several audiences.
_MAY_REPEAT = frozenset({"resource", "audience"})
# RFC 6749 section 5.1.
_NO_STORE = (("cache-control", "no-store"), ("pragma", "no-cache"))


def post_token(call: Call, config: PartnerConfig) -> Answer:
    """Answer a client credentials request with a token (RFC 6749 section 4.4), or with the error of section 5.2."""
    try:
        form, repeated = _form(call)
        client_auth = authenticate(call, form, config)
        _check_grant_type(form)
        _check_scope(form, config)
    except TokenRequestError as exc:
        return _refusal(exc)
    tokens = call.site.tokens
    token = tokens.newest() if call.state.plan.quirk(Cached, call.target) else None
    if token is None:
        token = tokens.issue(config.token_lifetime, {"clientAuth": client_auth, "scope": form.get("scope"), **repeated})
        call.site.counters.tokens_issued += 1
    lifetime = int(tokens.seconds_left(token))
    body: dict[str, object] = {"access_token": token.value, "token_type": "Bearer"}
    if config.expires_in != "omitted":
        body["expires_in"] = lifetime if config.expires_in == "number" else str(lifetime)
    if "scope" in form:
        body["scope"] = form["scope"]
    return Answer(status=200, body=msgspec.json.encode(body), headers=_NO_STORE, outcome="issued")


def get_discovery(call: Call, config: PartnerConfig) -> Answer:
    """Answer the discovery document (OpenID Connect Discovery 1.0 section 4, RFC 8414 section 2)."""
    methods = ["client_secret_basic", "client_secret_post"]
    document: dict[str, object] = {
        "issuer": call.base_url,
        "token_endpoint": call.base_url + TOKEN_PATH,
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": methods,
    }
    if config.client_public_key is not None:
        methods.append("private_key_jwt")
        key = public_key(config.client_public_key)
        document["token_endpoint_auth_signing_alg_values_supported"] = algorithms(key)
    if config.scopes is not None:
        document["scopes_supported"] = sorted(config.scopes)
    return Answer(status=200, body=msgspec.json.encode(document))


def _form(call: Call) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the parameters that stand once, and those that may be repeated; ones without a value count as left out."""
    if call.media_type != "application/x-www-form-urlencoded":
        raise TokenRequestError("invalid_request", "The body must be application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(call.body.decode(), errors="strict")
    except ValueError as exc:
        raise TokenRequestError("invalid_request", "The body is not UTF-8") from exc
    form: dict[str, str] = {}
    repeated: dict[str, list[str]] = {name: [] for name in sorted(_MAY_REPEAT)}
    for name, value in pairs:
        if name in _MAY_REPEAT:
            repeated[name].append(value)
        elif name in form:
            raise TokenRequestError("invalid_request", f"The parameter {name!r} is repeated")
        else:
            form[name] = value
    return form, repeated


def _check_grant_type(form: dict[str, str]) -> None:
    grant_type = form.get("grant_type")
    if grant_type is None:
        raise TokenRequestError("invalid_request", "The parameter 'grant_type' is missing")
    if grant_type != "client_credentials":
        raise TokenRequestError("unsupported_grant_type", "Only 'client_credentials' is supported")


def _check_scope(form: dict[str, str], config: PartnerConfig) -> None:
    scope = form.get("scope")
    if scope is None:
        return
    if not _SCOPE.fullmatch(scope):
        raise TokenRequestError("invalid_scope", "The scope is malformed")
    if config.scopes is not None and not config.scopes.issuperset(scope.split(" ")):
        raise TokenRequestError("invalid_scope", f"The scopes are: {' '.join(sorted(config.scopes))}")


def _refusal(refused: TokenRequestError) -> Answer:
    unauthorised = refused.error == "invalid_client"
    return Answer(
        status=401 if unauthorised else 400,
        body=msgspec.json.encode({"error": refused.error, "error_description": refused.description}),
        headers=(*_NO_STORE, ("www-authenticate", 'Basic realm="sandbox"')) if unauthorised else _NO_STORE,
        outcome=refused.error,
    )
