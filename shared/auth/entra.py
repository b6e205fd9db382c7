"""Microsoft Entra's tokens through MSAL: the client credentials grant, and managed identities.

MSAL runs in a worker thread. It has no way to end a request that is under way, so what it sends goes through the event
loop: it ends with the task that sends it, no thread waits for a socket, and nothing is sent once the caller has gone.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from urllib.parse import urlencode

from shared.auth.client_credentials import (
    ASSERTIONS,
    SECRETS,
    TARGETS,
    federated_assertion,
    read_secret,
    request_with,
    text_in_file,
)
from shared.auth.token_endpoint import (
    CONFIGURATION,
    Answer,
    access_token_from,
    discovered_problem,
    exchange,
    token_error,
)
from shared.errors import CredentialError, TokenError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from shared.auth.access_token import AccessToken
    from shared.settings.reader import SettingReader

_T = TypeVar("_T")

AUTHORITY = "https://login.microsoftonline.com"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")  # a GUID or a domain name
_CREDENTIALS = (*SECRETS, *ASSERTIONS)
_NO_ANSWER = Answer(0, {}, b"")
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

    @classmethod
    def from_settings(cls, read: SettingReader) -> Self:
        """Read the settings; what is missing, wrong or contradictory is a problem of the reader's."""
        is_set = f"{read.name('TENANT_ID')} is set"
        if not _TENANT.fullmatch(read.checked_text("TENANT_ID") or "reference"):
            read.complain(f"{read.name('TENANT_ID')} must be a GUID or a domain name")
        read.require("CLIENT_ID", is_set)
        read.require_one_of(_CREDENTIALS, f"{is_set}, which needs")
        _require_target(read, is_set)
        texts: dict[str, Any] = {key.lower(): read.text(key) for key in (*_CREDENTIALS, *TARGETS)}
        return cls(tenant_id=read.text("TENANT_ID") or "", client_id=read.text("CLIENT_ID") or "", **texts)

    def build(self, client: httpx.AsyncClient) -> EntraGrant:
        """Return the grant."""
        return EntraGrant(client, self)

    @property
    def method(self) -> str:
        """The kind of credential."""
        if self.client_certificate is not None:
            return "certificate"
        return "secret" if self.federated_token_file is None else "federated_token"


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
        if not target and len(scope.split()) > 1:
            read.complain(f"{read.name('SCOPE')} must be one scope: a managed identity asks for one resource")
        client_id = None if identity.lower() == "system" else identity
        return cls(client_id, target or scope.removesuffix("/.default"))

    @property
    def is_shareable(self) -> bool:
        """Whether other processes may use the tokens: every app and slot has a system-assigned identity of its own."""
        return self.client_id is not None

    def build(self, client: httpx.AsyncClient) -> ManagedIdentityGrant:
        """Return the grant."""
        return ManagedIdentityGrant(client, self)


def _require_target(read: SettingReader, is_set: str) -> None:
    """Complain if nothing says what the token is for: Microsoft Entra issues none without."""
    if not any(read.text(target) for target in TARGETS):
        read.complain(f"{is_set}, so one of {', '.join(map(read.name, TARGETS))} is needed")


class EntraGrant:
    """Requests access tokens from Microsoft Entra with the client credentials grant; a TokenGrant.

    Each request has an MSAL client of its own: MSAL's caches, of tokens as of refusals, can never answer for the
    server. The scope is `scope` or, without it, `<resource or audience>/.default`. `client` stays the caller's to
    close. `timeout` is seconds for one token request, from the tenant's metadata to the last byte.
    """

    def __init__(
        self, client: httpx.AsyncClient, settings: Entra, *, authority: str = AUTHORITY, timeout: float = 10.0
    ) -> None:
        self._client = client
        self._settings = settings
        self._authority = f"{authority.removesuffix('/')}/{settings.tenant_id}"
        target = settings.resource or settings.audience
        self._scopes = settings.scope.split() if settings.scope else [f"{target}/.default"]
        self._timeout = timeout
        self._metadata: dict[str, MsalResponse] = {}

    @property
    def cache_key(self) -> str:
        """Names the whole request, with no secret in it."""
        return json.dumps([self._authority, self._settings.client_id, self._settings.method, self._scopes])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002, none is kept here
        """Request one access token, and once more if the refused credential has been rotated meanwhile."""
        name = f"the {self._settings.method} of the client"
        return await request_with(lambda: _read_credential(self._settings), name, self._ask)

    async def _ask(self, credential: str | dict[str, str]) -> AccessToken:
        def ask(http: MsalHttp) -> None:
            # It takes 130 ms to import, which only its users should pay, and not on the event loop.
            import msal  # type: ignore[import-untyped]  # noqa: PLC0415, see above

            app = msal.ConfidentialClientApplication(
                self._settings.client_id,
                client_credential=_for_msal(credential),
                authority=self._authority,
                instance_discovery=False,  # the authority is this app's own setting: nobody need vouch for it
                http_client=http,
            )
            app.acquire_token_for_client(self._scopes)

        http = MsalHttp(self._client, "Microsoft Entra", timeout=self._timeout, metadata=self._metadata)
        await http.run(ask)
        return access_token_from(http.answer, now=datetime.now(UTC), secrets=http.secrets)


def _read_credential(settings: Entra) -> str | dict[str, str]:
    """Read the secret itself, or a dictionary with members of MSAL's `client_credential`."""
    if settings.federated_token_file is not None:
        return {"client_assertion": federated_assertion(settings.federated_token_file)}
    if settings.client_certificate is None:
        return read_secret(settings.client_secret, settings.client_secret_file)
    from shared.auth.private_key_jwt import client_certificate_from_pem  # noqa: PLC0415, 50 ms, in a worker thread

    own = client_certificate_from_pem(text_in_file(settings.client_certificate))
    if own.certificate is None or own.algorithm not in {"RS256", "PS256"}:
        raise CredentialError("Microsoft Entra needs an RSA key together with its certificate")
    return {"private_key": own.key_pem.decode(), "public_certificate": own.certificate_pem.decode()}


def _for_msal(credential: str | dict[str, str]) -> object:
    if isinstance(credential, dict) and "client_assertion" in credential:
        return {"client_assertion": lambda: credential["client_assertion"]}  # MSAL warns of an assertion as a string
    return credential


class ManagedIdentityGrant:
    """Requests access tokens for a managed identity; a TokenGrant.

    MSAL finds the endpoint: that of App Service and Azure Functions if the platform names one (IDENTITY_ENDPOINT), else
    the virtual machine's (IMDS), which hands out the same token for hours. `client` stays the caller's to close; it
    must use no proxy. `timeout` is seconds for one token request.
    """

    def __init__(self, client: httpx.AsyncClient, settings: ManagedIdentity, *, timeout: float = 10.0) -> None:
        self._client = client
        self._settings = settings
        self._timeout = timeout
        # Nothing in the request says which system-assigned identity it is: its tokens are for this process alone.
        self._identity = settings.client_id or f"of process {uuid.uuid4()}"

    @property
    def cache_key(self) -> str:
        """Names the whole request, with no secret in it; of a system-assigned identity no two keys are the same."""
        return json.dumps(["managed_identity", self._identity, self._settings.resource])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002, none is kept here
        """Request one access token."""
        http = MsalHttp(self._client, "the identity endpoint", timeout=self._timeout)
        result = await http.run(self._ask)
        # App Service answers in a form of its own, of which MSAL makes a token response.
        answer = replace(http.answer, body=json.dumps(result).encode())
        return access_token_from(answer, now=datetime.now(UTC), secrets=http.secrets)

    def _ask(self, http: MsalHttp) -> dict[str, Any]:
        import msal  # noqa: PLC0415, as above

        client_id = self._settings.client_id
        user = client_id and msal.UserAssignedManagedIdentity(client_id=client_id)
        client = msal.ManagedIdentityClient(user or msal.SystemAssignedManagedIdentity(), http_client=http)
        result: dict[str, Any] = client.acquire_token_for_client(resource=self._settings.resource)
        return result


@dataclass(frozen=True, slots=True)
class MsalResponse:
    """A response as MSAL reads it."""

    status_code: int
    text: str
    headers: Mapping[str, str]


class MsalHttp:
    """The HTTP client that MSAL is given for one token request; `answer` is the last answer, with status 0 before one.

    `timeout` is seconds for all that is sent, `what` names the server in errors. `metadata` keeps the configuration
    documents of authorities, by URL, from one token request to the next. MSAL calls `get` and `post` in its thread.
    """

    def __init__(
        self, client: httpx.AsyncClient, what: str, *, timeout: float, metadata: dict[str, MsalResponse] | None = None
    ) -> None:
        self.answer = _NO_ANSWER
        self.secrets: list[str] = []
        self._client = client
        self._what = what
        self._timeout = timeout
        self._metadata = {} if metadata is None else metadata
        self._loop = asyncio.get_running_loop()
        self._sending: asyncio.Task[Any] | None = None
        self._ended = False

    async def run(self, ask: Callable[[MsalHttp], _T]) -> _T:
        """Return what `ask`, run in a worker thread, gets from MSAL with this client.

        Raises:
            TokenRejectedError: the server blames the client's configuration.
            TokenUnavailableError: there is no whole answer in time, or it makes no sense to MSAL.
        """
        try:
            async with asyncio.timeout(self._timeout):
                result = await asyncio.to_thread(self._result, ask)
        except TimeoutError:
            result = TokenUnavailableError(f"{self._what} did not answer within {self._timeout:g} s")
        finally:
            self._ended = True
            if self._sending is not None:
                self._sending.cancel()  # the worker thread ends with it
        if isinstance(result, TokenError):
            raise result
        return result

    def _result(self, ask: Callable[[MsalHttp], _T]) -> _T | TokenError:
        """Return an error as a value: raised anew, it has no context, whose text may hold what was sent or came."""
        try:
            return ask(self)
        except TokenError as exc:
            return exc
        except Exception as exc:  # noqa: BLE001, MSAL has no error type for most of what goes wrong in it
            answer, fault = self.answer, type(exc).__name__
        if answer is _NO_ANSWER:
            return TokenUnavailableError(f"MSAL failed with {fault}")
        if answer.is_success:
            answer = replace(answer, problem=f"MSAL cannot read its answer, {fault}")
        return token_error(answer, now=datetime.now(UTC), secrets=self.secrets)

    def get(self, url: str, *, params: Any = None, headers: Any = None, **_: Any) -> MsalResponse:  # noqa: ANN401, as MSAL calls it
        """Send a GET request, unless it is for metadata that is there."""
        return self._metadata.get(url) or self._exchange("GET", url, params, headers, None)

    def post(self, url: str, *, params: Any = None, data: Any = None, headers: Any = None, **_: Any) -> MsalResponse:  # noqa: ANN401, the same
        """Send a POST request with a form."""
        return self._exchange("POST", url, params, headers, data or {})

    def close(self) -> None:
        """Do nothing: the connections are the caller's."""

    def _exchange(self, method: str, url: str, params: Any, headers: Any, data: Any) -> MsalResponse:  # noqa: ANN401, the same
        """Send a request; raise a ValueError for nonsense: MSAL would log it, or send a secret to where it says."""
        self.answer = _NO_ANSWER
        form = {name: value for name, value in (data or {}).items() if value is not None}
        sent = {**(headers or {}), **form}
        self.secrets += [sent[name] for name in _SECRET_FIELDS if name in sent]
        whole_url = url + ("&" if "?" in url else "?") + urlencode(params) if params else url
        content = None if data is None else urlencode(form).encode("ascii")
        sending = self._send(method, whole_url, headers or {}, content)
        self.answer = answer = asyncio.run_coroutine_threadsafe(sending, self._loop).result()
        document = answer.document()
        if not document and (answer.is_success or method == "POST"):
            raise ValueError("it is no JSON object")
        headers = {name.lower(): value for name, value in answer.headers.items()}
        response = MsalResponse(answer.status, answer.body.decode("utf-8", "replace"), headers)
        if answer.is_success and url.endswith(CONFIGURATION):
            if discovered_problem(document.get("token_endpoint"), url) or "authorization_endpoint" not in document:
                raise ValueError("it names no usable endpoint")
            self._metadata[url] = response
        return response

    async def _send(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        if self._ended:
            raise TokenUnavailableError("nobody waits for this token any more")
        self._sending = asyncio.current_task()
        return await exchange(
            self._client, method, url, what=self._what, headers=headers, content=content, timeout=self._timeout
        )
