"""The OpenAPI document tells the truth: tools that know nothing else find no fault, and their clients work."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
import pytest

from sandbox.processes import PROJECT
from shared.partner import RESOURCES
from tests.end_to_end.stage import RESOURCE, id_of, record, records

if TYPE_CHECKING:
    import httpx

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Json, Stage

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "100")
# The host answers TRACE itself; the rest of this check is in test_deliveries_end_to_end.py.
CHECKS = ["--checks", "all", "--exclude-checks", "unsupported_method,allow_header_conformance"]


class Document:
    """The document of a running app, which judges answers: they have no member that it does not describe."""

    def __init__(self, content: Json) -> None:
        self.content = content
        schemas = content["components"]["schemas"]
        self.components = {
            "schemas": {name: {"additionalProperties": False} | schema for name, schema in schemas.items()}
        }

    def check(self, method: str, template: str, answer: httpx.Response) -> None:
        """Fail unless the document has this answer for the operation, with this media type and content."""
        # It has no types, and takes every process of pytest a third of a second.
        from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]  # noqa: PLC0415

        told = self.content["paths"][template][method]["responses"].get(str(answer.status_code))
        assert told is not None, f"{method} {template} answered {answer.status_code}: {answer.text}"
        for name in told.get("headers", {}):
            assert name in answer.headers
        if not told.get("content"):
            assert answer.content == b""
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = told["content"][media_type].get("schema", {})
        if "json" in media_type:
            whole = {"$ref": "#/whole/schema", "whole": {"schema": schema}, "components": self.components}
            errors = Draft202012Validator(whole, format_checker=FormatChecker()).iter_errors(answer.json())
            assert [error.message for error in errors] == []


async def document_of(stage: Stage) -> Document:
    return Document((await stage.ask("GET", "openapi.json")).json())


async def test_every_kind_of_answer_is_as_the_document_says(stage: Stage) -> None:
    document = await document_of(stage)
    one, batch = f"/{RESOURCE.route}", f"/{RESOURCE.route}/batch"
    await stage.set_faults(
        {"fault": "status", "route": "post", "record": id_of(2), "status": 422, "body": {"title": "No", "code": 1}},
        {"fault": "status", "route": "post", "record": id_of(3), "status": 500, "times": 1},
    )

    async def post(body: object, template: str, key: str | None = None, prefer: str | None = None) -> httpx.Response:
        answer = await stage.send(body, key=key, prefer=prefer)
        document.check("post", template, answer)
        return answer

    started = [
        await post(record(1), one, "one"),
        await post(record(2), one),
        await post(record(3), one),
        await post(records(4), batch),
    ]
    await post(record(4), one, "one")
    await post(record(1), one, "one", prefer="wait=30")
    await post(record(2), one, None, prefer="wait=30")
    await post({}, one)
    await post(record(1) | {RESOURCE.id_member: None}, one)
    await post([], batch)
    await post([record(5)] * 2, batch)
    await post(record(1), one, "a key")
    for answer in started:
        links = answer.json()
        document.check("get", "/deliveries/{id}", await stage.ask("GET", links["statusQueryGetUri"]))
        await stage.finished(links)
        for query in ("", "?records=true", "?records=maybe"):
            document.check("get", "/deliveries/{id}", await stage.ask("GET", links["statusQueryGetUri"] + query))
        document.check("get", "/deliveries/{id}/history", await stage.ask("GET", links["historyGetUri"]))
        for verb in ("cancel", "suspend", "resume", "redeliver"):
            document.check("post", f"/deliveries/{{id}}/{verb}", await stage.ask("POST", links[f"{verb}PostUri"]))
    for query in ("", "?top=2", "?state=delivered,partly", "?state=none", f"?resource={RESOURCE.route}", "?key=one"):
        document.check("get", "/deliveries", await stage.ask("GET", f"deliveries{query}"))
    for id_ in (id_of(1), "none"):
        answer = await stage.ask("GET", f"{RESOURCE.route}/{quote(id_, safe='')}")
        document.check("get", f"/{RESOURCE.route}/{{id}}", answer)
    for path in ("/health", "/health/deep", "/docs", "/console", "/openapi.json"):
        document.check("get", path, await stage.ask("GET", path[1:]))
    document.check("get", "/deliveries/{id}", await stage.ask("GET", "deliveries/none"))


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_schemathesis_finds_no_fault(start: StartStage, tmp_path: Path) -> None:
    stage = start(options=["--keys"])
    command = ["run", f"{stage.host.url}/api/openapi.json", "--max-examples", EXAMPLES, *CHECKS]
    command += ["--header", f"x-functions-key: {stage.key}", "--no-color", "--continue-on-failure"]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "SCHEMATHESIS_HOOKS": "tests.end_to_end.schemathesis_hooks"}

    run = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        *command,
        cwd=tmp_path,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await run.communicate()

    sys.stdout.write(output.decode()[-600:])
    assert run.returncode == 0, output.decode()[-12_000:]
    for text in ("Exception", "Traceback", *stage.secrets):
        assert text not in stage.host.output


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_generated_client_works(stage: Stage, tmp_path: Path) -> None:
    """openapi-python-client makes a package of the document: a record goes through it, and its delivery comes back."""
    document = (await stage.ask("GET", "openapi.json")).content
    (tmp_path / "openapi.json").write_bytes(document)
    environment, python = tmp_path / "venv", tmp_path / "venv" / "bin" / "python"
    name = RESOURCE.name
    operation = msgspec.json.decode(document)["paths"][f"/{RESOURCE.route}"]["post"]["operationId"]
    script = f"""
        import json, sys, time
        from business_relay_client import Client
        from business_relay_client.api.deliveries import get_delivery
        from business_relay_client.api.{snake(RESOURCE.route)} import {snake(operation)}
        from business_relay_client.models import {name}, Delivery

        client = Client(base_url=sys.argv[1] + "/api")
        body = {name}.from_dict(json.loads(sys.argv[2]))
        links = {snake(operation)}.sync(client=client, body=body)
        for _ in range(300):
            answer = get_delivery.sync_detailed(links.id, client=client)
            if answer.status_code == 200:
                break
            time.sleep(0.1)
        assert isinstance(answer.parsed, Delivery), answer
        print(answer.parsed.state, answer.parsed.record_id)
    """

    def make() -> str:
        def run(*command: object) -> str:
            words = list(map(str, command))
            done = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)  # noqa: S603, ours
            return done.stdout

        run(sys.executable, "-m", "venv", environment)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "openapi-python-client>=0.26")
        run(
            environment / "bin" / "openapi-python-client", "generate", "--path", "openapi.json", "--output-path", "made"
        )
        (tmp_path / "made" / "use.py").write_text(textwrap.dedent(script))
        sent = msgspec.json.encode(record(1)).decode()
        return run(python, tmp_path / "made" / "use.py", stage.host.url, sent)

    told = await asyncio.to_thread(make)

    assert told.split() == ["delivered", id_of(1)]
    assert (await stage.stored())[id_of(1)] == 1
    assert len(RESOURCES) == sum(1 for path in msgspec.json.decode(document)["paths"] if path.endswith("/batch"))


def snake(name: str) -> str:
    """Return a name as the generator writes it in Python."""
    spaced = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return spaced.replace("/", "_").replace("-", "_").strip("_")
