"""A partner and its token endpoints on one socket, which answer the first call of each case as the corpus says."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.raw_server import Connection, RawRequest, RawServer, response

if TYPE_CHECKING:
    from tests.hostile.corpus import Case

TOKEN, SECRET, CLIENT = "hostile-access-token-", "hostile-client-secret-K7q9", "hostile-client"


def forms(name: str, secret: str) -> dict[str, str]:
    """Return the forms in which servers echo a secret, by the place of the corpus in which each stands."""
    return {
        f"{{{name}}}": secret,
        f"{{{name}_base64}}": base64.b64encode(secret.encode()).decode(),
        f"{{{name}_percent}}": "".join(f"%{ord(char):02X}" for char in secret),
        f"{{{name}_entity}}": "".join(f"&#x{ord(char):x};" for char in secret),
        f"{{{name}_split}}": f"{secret[:12]}\\n{secret[12:]}",
    }


BASIC = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()


def leaks(text: str) -> list[str]:
    """Return the surroundings of tokens and of the secret in a text, in whatever form."""
    sought = {*forms("", SECRET).values(), *forms("", TOKEN).values(), BASIC}
    # The end of a base64 text depends on what follows.
    begins = {form.rstrip("=")[:24] for form in sought}
    compact = "".join(text.replace("\\n", "").split())
    return [
        where[max(0, where.index(begin) - 200) :][:400]
        for where in (text, compact)
        for begin in begins
        if begin in where
    ]


class Gate:
    """Holds the first post of a record: `arrived` is set when it has come, and it goes on when `opened` is set."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.opened = asyncio.Event()


class HostilePartner:
    """Several partners, each below the path of its name: `/LANE_0/parcels`, `/LANE_0/token`.

    `stored` counts how often each record was stored. A case is answered once, by the id of its record; one of a token
    endpoint by the partner's name, with `token_cases`. `holds` keeps posts without an answer.
    """

    def __init__(self) -> None:
        self.stored: Counter[str] = Counter()
        self.cases: dict[str, Case] = {}
        self.always: dict[str, Case] = {}
        self.gates: dict[str, Gate] = {}
        self.token_cases: dict[str, deque[Case]] = defaultdict(deque)
        self.token_requests: Counter[str] = Counter()
        self.revoked: set[str] = set()
        self._contents: dict[tuple[str, str], bytes] = {}
        self._by_key: set[str] = set()
        self._tokens: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self.server = RawServer(self._serve)

    async def _serve(self, connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            partner, _, rest = urlsplit(request.target).path.lstrip("/").partition("/")
            if rest != "token" and request.method == "POST" and (gate := self.gates.pop(_id(rest, request), None)):
                gate.arrived.set()
                await gate.opened.wait()
            octets, is_last = self._token(partner) if rest == "token" else self._answer(partner, rest, request)
            await connection.send(octets)
            if is_last:
                return

    def _token(self, partner: str) -> tuple[bytes, bool]:
        self.token_requests[partner] += 1
        self._tokens[partner] += 1
        token = f"{TOKEN}{partner}-{self._tokens[partner]}"
        if self.token_cases[partner]:
            return _hostile(self.token_cases[partner].popleft(), {"{token}": token})
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
        return response(json.dumps(answer).encode(), "Content-Type: application/json"), False

    def _answer(self, partner: str, rest: str, request: RawRequest) -> tuple[bytes, bool]:
        token = next(iter(request.values("authorization")), "").removeprefix("Bearer ")
        if not token.startswith(f"{TOKEN}{partner}-") or token in self.revoked:
            return response(b"", 'WWW-Authenticate: Bearer error="invalid_token"', status="401 Unauthorized"), False
        is_look_up = request.method == "GET"
        id_ = _id(rest, request)
        case = self.cases.get(id_)
        if case is not None and is_look_up == (case.fields.get("to") == "look-up"):
            self._times[id_] += 1
            if self._times[id_] == case.fields.get("again", 1):
                del self.cases[id_]
            if case.fields.get("stores"):
                self._store(partner, id_, request)
            return _hostile(case, {**forms("token", token), "{id}": id_})
        if id_ in self.always:
            return _hostile(self.always[id_], {})
        if not is_look_up:
            self._store(partner, id_, request)
            return response(b"", status="201 Created"), False
        content = self._contents.get((partner, id_))
        if partner == "LANE_LISTED":
            entry = [] if content is None else [json.loads(content) | {"attributes": {"no": int(id_)}}]
            return response(json.dumps({"data": [{"entries": entry}]}).encode()), False
        return (response(b"{}", status="404 Not Found") if content is None else response(content)), False

    def _store(self, partner: str, id_: str, request: RawRequest) -> None:
        key = "".join(request.values("x-request-id"))
        is_again = (request.method == "PUT" and id_ in self.stored) or (key != "" and key in self._by_key)
        self._by_key.add(key)
        self.stored[id_] += not is_again
        self._contents[partner, id_] = request.body


def _id(rest: str, request: RawRequest) -> str:
    parts = urlsplit(request.target)
    if request.method == "POST":
        record: dict[str, Any] = json.loads(request.body)
        return str(record.get("parcelId", record.get("entry_no")))
    if wish := parse_qs(parts.query).get("filter"):
        return wish[0].removeprefix("no eq ")
    return unquote(rest.partition("/")[2])


def _hostile(case: Case, places: dict[str, str]) -> tuple[bytes, bool]:
    """Return the bytes of a case's answer, and whether the connection is closed after them."""
    places = {**forms("secret", SECRET), "{basic}": BASIC, **places}

    def filled(text: str) -> str:
        for place, value in places.items():
            text = text.replace(place, value)
        return text

    fields = case.fields
    if "raw" in fields:
        return filled(fields["raw"]).encode(), True
    body = case.body()
    if len(body) < 1_000_000 and "as" not in fields:
        body = filled(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    head = [f"HTTP/1.1 {filled(fields.get('status', '200 OK'))}", *map(filled, fields.get("headers", []))]
    if not any(line.lower().startswith("content-length") for line in head):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body, False
