"""Microsoft Entra's tokens through MSAL: the client credentials grant, and managed identities.

MSAL would block while it waits for an answer. So its HTTP client answers from a list, and where the list ends it keeps
what MSAL wants to send. That is sent on the event loop, and MSAL runs again with one answer more: two or three runs of
a few milliseconds each in a worker thread, and no thread ever waits for a socket.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from shared.auth.client_credentials import ASSERTIONS, SECRETS, TARGETS, credential_in, usable
from shared.auth.token_endpoint import access_token_from, exchange, token_error
from shared.errors import CredentialError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.token_endpoint import AccessToken, Answer
    from shared.settings.reader import SettingReader

    Result = dict[str, Any]
    # A method, a URL and what goes with it.
    Unsent = tuple[str, str, dict[str, Any]]

AUTHORITY = "https://login.microsoftonline.com"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")  # a GUID or a domain name
_CREDENTIALS = (*SECRETS, *ASSERTIONS)
# The last is the header that App Service wants to see before it gives out tokens.
_SECRET_FIELDS = ("client_secret", "client_assertion", "X-IDENTITY-HEADER")


@dataclass(frozen=True, slots=True)
class Entra:
    """The settings of the client credentials grant; one credential and at least one of the last three are set."""

    SOURCES: ClassVar = ("TENANT_ID",)
    KEYS: ClassVar = (*SOURCES, "CLIENT_ID", *_CREDENTIALS, *TARGETS)
    is_shareable: ClassVar = True
    server: ClassVar = AUTHORITY

    tenant_id: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    client_secret_file: str | None = None
    client_certificate: str | None = None
    federated_token_file: str | None = None
    scope: str | None = None
    audience: str | None = None
    resource: str | None = None
    authority: str = AUTHORITY

    @classmethod
    def from_settings(cls, read: SettingReader) -> Self:
        """Read the settings; what is missing, wrong or contradictory is a problem of the reader's."""
        is_set = f"{read.name('TENANT_ID')} is set"
        if (tenant_id := read.text("TENANT_ID")) and not _TENANT.fullmatch(tenant_id):
            read.complain(f"{read.name('TENANT_ID')} must be a GUID or a domain name")
        client_id = read.require("CLIENT_ID", is_set)
        read.require_one_of(_CREDENTIALS, f"{is_set}, which needs")
        _require_target(read, is_set)
        texts: dict[str, Any] = {key.lower(): read.text(key) for key in (*_CREDENTIALS, *TARGETS)}
        return cls(tenant_id or "", client_id, **texts)

    async def request_token(self, transport: httpx.AsyncBaseTransport) -> AccessToken:
        """Request one access token; the scope is `scope` or `<resource or audience>/.default`.

        Raises:
            TokenError: there is no token, or no credential.
        """
        files = self.client_secret_file, self.client_certificate, self.federated_token_file
        credential = await usable(partial(credential_in, self.client_secret, *files))
        return await _request_token(transport, "Microsoft Entra", partial(self._ask, credential))

    def _ask(self, text: str, http: _Answers) -> Result:
        import msal  # type: ignore[import-untyped]  # noqa: PLC0415, 130 ms that only its users pay

        credential: object = text
        if self.federated_token_file is not None:
            credential = {"client_assertion": lambda: text}  # MSAL warns of one as a string
        elif self.client_certificate is not None:
            from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415, 50 ms, the same

            from shared.auth.private_key_jwt import client_key_from_pem  # noqa: PLC0415, the same

            _, certificate, algorithms = client_key_from_pem(text)
            if certificate is None or "PS256" not in algorithms:
                raise CredentialError("Microsoft Entra needs an RSA key together with its certificate")
            octets = certificate.public_bytes(Encoding.PEM)
            credential = {"private_key": text, "public_certificate": octets.decode()}
        app = msal.ConfidentialClientApplication(
            self.client_id,
            client_credential=credential,
            authority=f"{self.authority}/{self.tenant_id}",
            instance_discovery=False,  # the authority is this app's own setting: nobody need vouch for it
            http_client=http,
        )
        scopes = self.scope.split() if self.scope else [f"{self.resource or self.audience}/.default"]
        result: Result = app.acquire_token_for_client(scopes)
        return result


@dataclass(frozen=True, slots=True)
class ManagedIdentity:
    """The settings of an identity that Azure gives to the app or the machine; without a `client_id`, the system's."""

    SOURCES: ClassVar = ("MANAGED_IDENTITY",)
    KEYS: ClassVar = (*SOURCES, *TARGETS)
    server: ClassVar = None  # a link-local or loopback address: no proxy stands before it

    client_id: str | None
    resource: str

    @classmethod
    def from_settings(cls, read: SettingReader) -> Self:
        """Read the settings; what is missing, wrong or contradictory is a problem of the reader's."""
        source, identity = read.name("MANAGED_IDENTITY"), read.text("MANAGED_IDENTITY") or ""
        of_an_identity = f"a managed identity does not use: {source} is the client id of a user-assigned one"
        read.refuse(("CLIENT_ID",), of_an_identity)
        _require_target(read, f"{source} is set")
        target, scope = read.text("RESOURCE") or read.text("AUDIENCE"), read.text("SCOPE") or ""
        if not any(map(read.has, ("RESOURCE", "AUDIENCE"))) and len(scope.split()) > 1:
            read.complain(f"{read.name('SCOPE')} must be one scope: a managed identity asks for one resource")
        client_id = None if identity.lower() == "system" else identity
        return cls(client_id, target or scope.removesuffix("/.default"))

    @property
    def is_shareable(self) -> bool:
        """Whether other processes may use the tokens: every app and slot has a system-assigned identity of its own."""
        return self.client_id is not None

    async def request_token(self, transport: httpx.AsyncBaseTransport) -> AccessToken:
        """Request one access token; `transport` must use no proxy.

        MSAL finds the endpoint: that of App Service and Azure Functions if the platform names one (IDENTITY_ENDPOINT),
        else the virtual machine's (IMDS), which hands out the same token for hours.

        Raises:
            TokenError: there is none.
        """
        return await _request_token(transport, "the identity endpoint", self._ask)

    def _ask(self, http: _Answers) -> Result:
        import msal  # noqa: PLC0415, as above

        user = self.client_id and msal.UserAssignedManagedIdentity(client_id=self.client_id)
        client = msal.ManagedIdentityClient(user or msal.SystemAssignedManagedIdentity(), http_client=http)
        result: Result = client.acquire_token_for_client(resource=self.resource)
        return result


def _require_target(read: SettingReader, is_set: str) -> None:
    """Complain if nothing says what the token is for: Microsoft Entra issues none without."""
    if not any(map(read.has, TARGETS)):
        read.complain(f"{is_set}, so one of {', '.join(map(read.name, TARGETS))} is needed")


async def _request_token(
    transport: httpx.AsyncBaseTransport, what: str, ask: Callable[[_Answers], Result]
) -> AccessToken:
    """Request an access token of `what`; `ask` has MSAL make of the answers what it makes of them.

    Each run has an MSAL client of its own: MSAL's caches, of tokens as of refusals, can never answer for the server.
    """
    answers: tuple[Answer, ...] = ()
    secrets: list[str] = []
    while isinstance(outcome := await usable(partial(_run, ask, answers)), tuple):
        method, url, sent = outcome
        headers, data = sent.get("headers") or {}, sent.get("data") or {}
        # MSAL writes an assertion as bytes.
        data = {name: value.decode() if isinstance(value, bytes) else value for name, value in data.items()}
        secrets += [value for name, value in (headers | data).items() if name in _SECRET_FIELDS]
        params = sent.get("params")
        answer = await exchange(transport, method, url, what=what, headers=headers, params=params, data=data)
        # MSAL would log what is no JSON, and it may hold a token.
        if not answer.document() and (answer.is_success or method == "POST"):
            raise token_error(answer, "its answer is no JSON object" if answer.is_success else None, secrets)
        answers = (*answers, answer)
    if isinstance(outcome, str):
        if not answers:
            raise TokenUnavailableError(outcome)
        raise token_error(answers[-1], "MSAL cannot read its answer" if answers[-1].is_success else None, secrets)
    # App Service answers in a form of its own, of which MSAL makes a token response.
    return access_token_from(replace(answers[-1], body=json.dumps(outcome).encode()), secrets=secrets)


def _run(ask: Callable[[_Answers], Result], answers: tuple[Answer, ...]) -> Result | Unsent | str:
    """Return what MSAL makes of the answers, wants to send next, or fails with."""
    http = _Answers(answers)
    outcome: Result | str
    try:
        outcome = ask(http)
    except CredentialError:
        raise
    except Exception as exc:  # noqa: BLE001, MSAL has no error type for most of what goes wrong in it
        # A value has no context, whose text may hold what was sent or came.
        outcome = f"MSAL failed with {type(exc).__name__}"
    return http.unsent or outcome


class _Answers:
    """The HTTP client of one run of MSAL: the answers in order. What MSAL sends after them is `unsent`, and fails."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = iter(answers)
        self.unsent: Unsent | None = None
        self.get, self.post = partial(self._next, "GET"), partial(self._next, "POST")

    def _next(self, method: str, url: str, **sent: Any) -> SimpleNamespace:  # noqa: ANN401, as MSAL calls it
        answer = next(self._answers, None)
        if answer is None:
            self.unsent = method, url, sent
            raise ConnectionError
        text = answer.body.decode("utf-8", "replace")
        return SimpleNamespace(status_code=answer.status, text=text, headers=answer.headers)
