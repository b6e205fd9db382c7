"""The OpenAPI document is one, has every route, and says of each what it really takes and answers."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from azure.functions import HttpRequest
from hypothesis import given
from hypothesis import strategies as st
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from sandbox.sample import business
from shared.api.business import Business
from shared.delivery import routes
from shared.delivery.batch_input import MAX_RECORDS
from shared.delivery.batch_intake import read_batch
from shared.delivery.batch_orchestrator import deliver_batch
from shared.delivery.exchange import Reply, Request
from shared.delivery.intake import read_business
from shared.delivery.openapi import VERSION, document
from shared.delivery.openapi_schemas import example
from shared.delivery.orchestrators import deliver_business
from shared.errors import InvalidBusinessError, SettingsError, TokenRejectedError, TokenUnavailableError
from shared.settings import Settings
from tests.fakes.durable_client import BROKEN, DurableHost, Instance
from tests.fakes.fast_loop import run_fast
from tests.fakes.registered_functions import BINDINGS, FUNCTIONS
from tests.fakes.replay import play
from tests.fakes.scripted_partner import ScriptedPartner, found, missing, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

PROJECT = Path(__file__).parent.parent
DOCUMENT: dict[str, Any] = json.loads(document())
OPERATIONS = {
    operation["operationId"]: operation for methods in DOCUMENT["paths"].values() for operation in methods.values()
}
RECORD = business("b-1")
RECORD_SCHEMA: dict[str, Any] = DOCUMENT["components"]["schemas"]["Business"]
ENVIRON = {
    "BUSINESS_API_URL": "https://partner.example/v1",
    "BUSINESS_API_TOKEN_URL": "https://login.example/token",
    "BUSINESS_API_CLIENT_ID": "relay",
    "BUSINESS_API_CLIENT_SECRET": "s3cr3t",
}


def validator(schema: dict[str, Any]) -> OAS31Validator:
    """A validator of a schema in the document, which refers to the document's components."""
    OAS31Validator.check_schema(schema)
    return OAS31Validator({"components": DOCUMENT["components"], **schema})


def errors(schema: dict[str, Any], value: object) -> list[str]:
    return [error.message for error in validator(schema).iter_errors(value)]


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_document_is_built_once() -> None:
    assert document() is document()


def test_the_document_has_the_version_of_the_project() -> None:
    assert tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_the_document_is_below_the_prefix_of_the_routes() -> None:
    prefix = json.loads((PROJECT / "host.json").read_text())["extensions"]["http"]["routePrefix"]
    assert DOCUMENT["servers"] == [{"url": f"/{prefix}"}]


def registered() -> dict[tuple[str, str], str]:
    """The authorization level of each method and path that is registered, but for the one that catches the rest."""
    triggers = {
        name: binding for name, bindings in BINDINGS.items() for binding in bindings if binding["type"] == "httpTrigger"
    }
    del triggers["UnknownRoute"]
    return {
        (method.lower(), f"/{trigger['route']}"): trigger["authLevel"]
        for trigger in triggers.values()
        for method in trigger["methods"]
    }


def test_every_route_is_in_the_document_with_its_methods_and_no_other() -> None:
    documented = {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods}

    assert documented == set(registered())
    assert len(documented) == len(OPERATIONS)


def test_the_document_says_which_routes_want_a_key() -> None:
    assert DOCUMENT["security"] == [{"functionKey": []}, {"functionKeyInQuery": []}]
    for (method, path), level in registered().items():
        operation = DOCUMENT["paths"][path][method]
        assert operation.get("security") == (None if level == "FUNCTION" else []), path
        assert ("401" in operation["responses"]) == (level == "FUNCTION"), path


def test_every_parameter_of_a_path_is_in_it() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            named = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
            assert named == re.findall(r"{(\w+)}", path)


def test_a_record_has_the_members_of_the_model_but_for_its_own() -> None:
    schema = DOCUMENT["components"]["schemas"]["Business"]

    fields = [field for field in msgspec.structs.fields(Business) if field.encode_name != "$record"]
    assert schema["properties"].keys() == {field.encode_name for field in fields}
    assert set(schema["required"]) == {field.encode_name for field in fields if field.required}
    assert schema["additionalProperties"] is True
    assert "$record" not in document().decode()


RECORDS = {"$ref": "#/components/schemas/Business"}
strings = st.one_of(
    st.text(max_size=300),
    st.text("ab./\\é\u0000\t\n\u007f\u0085\u2028\N{ROCKET}", max_size=4),
    st.builds(lambda letter, count: letter * count, st.sampled_from(["x", "\N{ROCKET}"]), st.integers(120, 260)),
    st.sampled_from([".", "..", "...", "a\n", "..\n"]),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "externalId": strings | st.none() | st.integers(),
            "name": strings | st.none() | st.booleans(),
            "more": st.none() | st.lists(st.integers(), max_size=2),
        },
    )
)
def test_the_document_takes_the_records_that_the_app_takes(record: dict[str, Any]) -> None:
    try:
        Business.from_json(record)
    except InvalidBusinessError:
        assert errors(RECORDS, record) != []
    else:
        assert errors(RECORDS, record) == []


@pytest.mark.parametrize("record", [None, [], "text", 1])
def test_the_document_takes_objects_only(record: object) -> None:
    assert errors(RECORDS, record) != []


def test_the_document_takes_as_many_records_as_the_app() -> None:
    batch = {"$ref": "#/components/schemas/Batch"}
    assert errors(batch, [RECORD] * MAX_RECORDS) == []
    assert errors(batch, [RECORD] * (MAX_RECORDS + 1)) != []
    assert errors(batch, []) != []


def bodies() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every body of the document: its operation, its media type, its schema and example."""
    for name, operation in OPERATIONS.items():
        for holder in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media_type, content in holder.get("content", {}).items():
                yield name, media_type, content


@pytest.mark.parametrize(("name", "media_type", "content"), list(bodies()))
def test_every_body_has_an_example_that_is_one(name: str, media_type: str, content: dict[str, Any]) -> None:
    if content.get("example") is None and example(RECORD_SCHEMA) is None:
        pytest.skip("a required member of the model has no example: Meta(examples=[...]) gives it one")
    assert (name, media_type, errors(content["schema"], content["example"])) == (name, media_type, [])


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_every_parameter_has_a_schema_that_its_example_meets(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        assert parameter["description"]
        assert "example" not in parameter or errors(parameter["schema"], parameter["example"]) == []


def asked(body: object = RECORD, params: dict[str, str] | None = None, query: str = "", **headers: str) -> Request:
    named = {"content-type": "application/json"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"https://app.example/api/businesses{query}"
    queried = dict(httpx.QueryParams(query.removeprefix("?")))
    host = HttpRequest("POST", url, headers=named, params=queried, route_params=params or {}, body=octets)
    return Request(host.url, host.headers, host.get_body(), host.route_params, host.params)


@pytest.mark.parametrize("media_type", OPERATIONS["postBatch"]["requestBody"]["content"])
def test_every_example_of_a_batch_is_taken(media_type: str) -> None:
    shown = OPERATIONS["postBatch"]["requestBody"]["content"][media_type].get("example")
    if shown is None and example(RECORD_SCHEMA) is None:
        pytest.skip("a required member of the model has no example")
    body = shown.encode() if isinstance(shown, str) else shown

    assert len(read_batch(asked(body, content_type=media_type))) == 1


def test_the_example_of_a_business_is_taken() -> None:
    [(media_type, content)] = OPERATIONS["postBusiness"]["requestBody"]["content"].items()
    if "example" not in content and example(RECORD_SCHEMA) is None:
        pytest.skip("a required member of the model has no example")

    assert read_business(asked(content["example"], content_type=media_type)).to_json() == content["example"]


def test_the_example_of_a_business_is_made_of_its_members() -> None:
    members = {"a": {"examples": [1, 2]}, "b": {"type": "string"}, "c": {"examples": [[]]}}

    assert example({"properties": members, "required": ["a"]}) == {"a": 1, "c": []}
    assert example({"properties": members, "required": ["a", "b"]}) is None


def usable() -> Settings:
    return Settings.from_environ(ENVIRON)


def unusable() -> Settings:
    raise SettingsError(["BUSINESS_API_URL is missing"])


async def one_outcome(_name: str, _given: object) -> dict[str, Any]:
    return {"outcome": "created", "externalId": "b-1", "status": 201}


async def one_rejected(_name: str, _given: object) -> dict[str, Any]:
    rejection = {"index": 1, "externalId": "b-2", "status": 422, "reason": "The partner answered 422"}
    return {"created": [0], "rejected": [rejection]}


async def delivered() -> Any:  # noqa: ANN401 - any JSON
    return (await play(deliver_business, {"business": RECORD}, one_outcome)).output


async def delivered_batch() -> Any:  # noqa: ANN401 - any JSON
    records = [RECORD, RECORD | {"externalId": "b-2"}]
    return (await play(deliver_batch, {"businesses": records, "digest": "d"}, one_rejected)).output


def ending(status: str, output: object, custom_status: object = None) -> DurableHost:
    """A host whose deliveries have finished when they are looked at."""
    host = DurableHost()

    def finish(instance: Instance) -> None:
        instance.status, instance.output, instance.custom_status = status, output, custom_status

    host.on_read = finish
    return host


def broken() -> DurableHost:
    host = DurableHost()
    host.read_faults.extend([BROKEN] * 9)
    host.start_faults.append((BROKEN, False))
    return host


def with_batch(status: str, output: object = None, name: str = "businesses") -> DurableHost:
    host = DurableHost()
    host.instances["key-1"] = Instance("DeliverBatch", json.dumps({name: [RECORD], "digest": "d"}), status, output)
    return host


Case = tuple[str, int, "Callable[[], Coroutine[Any, Any, Reply]]"]
LEFT = {"rejections": [{"index": 0}]}
ID = {"id": "key-1"}


def starting_cases(name: str, route: Any, body: object, other: object) -> Iterator[Case]:  # noqa: ANN401 - a route
    """Every answer of a route that takes records."""

    async def answer(given: Request, host: DurableHost | None = None, settings: Any = usable) -> Reply:  # noqa: ANN401 - a function
        reply: Reply = await route(given, (host or DurableHost()).client(), settings)
        return reply

    async def success() -> Reply:
        output = await (delivered() if name == "postBusiness" else delivered_batch())
        return await answer(asked(body, prefer="wait=5"), ending("Completed", output))

    async def conflict() -> Reply:
        host = DurableHost()
        await answer(asked(body, idempotency_key="k"), host)
        return await answer(asked(other, idempotency_key="k"), host)

    yield name, 200, success
    yield name, 202, lambda: answer(asked(body))
    yield name, 202, lambda: answer(asked(body, idempotency_key="k", prefer="wait=1"))
    yield name, 400, lambda: answer(asked(b"{"))
    yield name, 400, lambda: answer(asked(body, idempotency_key="a b"))
    yield name, 409, conflict
    yield name, 413, lambda: answer(asked(b" " * 2_000_000))
    yield name, 415, lambda: answer(asked(body, content_type="text/plain"))
    yield name, 415, lambda: answer(asked(body, content_type="application/json; charset=utf-16"))
    yield name, 422, lambda: answer(asked([business("")] if isinstance(body, list) else business("")))
    yield name, 500, lambda: answer(asked(body, prefer="wait=5"), ending("Terminated", "enough"))
    yield name, 503, lambda: answer(asked(body), broken())
    yield name, 503, lambda: answer(asked(body), settings=unusable)


def single_cases() -> Iterator[Case]:
    """Answers that only a delivery of one record can end with."""

    async def ended(outcome: str) -> Reply:
        host = ending("Failed", "Business 'b-1' was given up", {"outcome": outcome})
        return await routes.post_business(asked(prefer="wait=5"), host.client(), usable)

    yield "postBusiness", 422, lambda: ended("rejected")
    yield "postBusiness", 504, lambda: ended("deferred")


def redelivery_cases() -> Iterator[Case]:
    name = "redeliverBatch"

    async def answer(host: DurableHost, settings: Any = usable, **headers: str) -> Reply:  # noqa: ANN401 - a function
        return await routes.redeliver_batch(asked(b"", ID, **headers), host.client(), settings)

    async def waited(status: str) -> Reply:
        host = with_batch("Completed", LEFT)
        output = await delivered_batch()

        def finish(instance: Instance) -> None:
            if instance is not host.instances["key-1"]:
                instance.status, instance.output = status, output if status == "Completed" else "enough"

        host.on_read = finish
        return await answer(host, prefer="wait=5")

    yield name, 200, lambda: waited("Completed")
    yield name, 202, lambda: answer(with_batch("Completed", LEFT))
    yield name, 404, lambda: answer(DurableHost())
    yield name, 404, lambda: answer(with_batch("Completed", LEFT, "business"))
    yield name, 409, lambda: answer(with_batch("Running"))
    yield name, 409, lambda: answer(with_batch("Completed", {"rejections": []}))
    yield name, 500, lambda: waited("Terminated")
    yield name, 503, lambda: answer(broken())
    yield name, 503, lambda: answer(with_batch("Completed", LEFT), unusable)


def reading_cases() -> Iterator[Case]:
    async def answer(*script: Any, external_id: str = "b-1") -> Reply:  # noqa: ANN401 - a partner's script
        return await routes.get_business(asked(b"", {"externalId": external_id}), ScriptedPartner(*script).api)

    async def unset() -> Reply:
        async def no_api() -> Any:  # noqa: ANN401 - it gives nothing
            raise SettingsError(["BUSINESS_API_URL is missing"])

        return await routes.get_business(asked(b"", {"externalId": "b-1"}), no_api)

    yield "getBusiness", 200, lambda: answer(found(RECORD | {"id": 7}))
    yield "getBusiness", 200, lambda: answer(found([1, "any JSON"]))
    yield "getBusiness", 400, lambda: answer(external_id="..")
    yield "getBusiness", 404, lambda: answer(missing())
    yield "getBusiness", 502, lambda: answer(refused(403))
    yield "getBusiness", 502, lambda: answer(TokenRejectedError("invalid_client"))
    yield "getBusiness", 503, lambda: answer(refused(429, retry_after="7"))
    yield "getBusiness", 503, lambda: answer(TokenUnavailableError("down", retry_after=2.5))
    yield "getBusiness", 503, unset
    yield "getBusiness", 504, lambda: answer(httpx.ReadTimeout("slow"))


def telling_cases() -> Iterator[Case]:
    async def deep(fault: Exception | None = None) -> Reply:
        async def check() -> None:
            if fault:
                raise fault

        return await routes.get_deep_health(check)

    async def openapi() -> Reply:
        return routes.get_openapi()

    yield "getHealth", 200, lambda: routes.get_health(asked(b""), usable)
    yield "getHealth", 307, lambda: routes.get_health(asked(b"", query="?deep=true"), usable)
    yield "getHealth", 503, lambda: routes.get_health(asked(b""), unusable)
    yield "getDeepHealth", 200, deep
    yield "getDeepHealth", 503, lambda: deep(TokenUnavailableError("down"))
    yield "getDeepHealth", 503, lambda: deep(SettingsError(["BUSINESS_API_URL is missing"]))
    yield "getOpenApi", 200, openapi


CASES: list[Case] = [
    *starting_cases("postBusiness", routes.post_business, RECORD, RECORD | {"note": "Bob"}),
    *starting_cases("postBatch", routes.post_batch, [RECORD], [RECORD | {"note": "Bob"}]),
    *single_cases(),
    *redelivery_cases(),
    *reading_cases(),
    *telling_cases(),
]


@pytest.mark.parametrize(
    ("name", "status", "case"),
    CASES,
    ids=[f"{number}-{name}-{status}" for number, (name, status, _) in enumerate(CASES)],
)
def test_what_a_route_answers_is_what_the_document_says(
    name: str, status: int, case: Callable[[], Coroutine[Any, Any, Reply]]
) -> None:
    reply, _ = run_fast(case())

    assert reply.status == status, reply.body
    documented = OPERATIONS[name]["responses"][str(status)]
    content = documented["content"][reply.headers["content-type"]]
    assert errors(content["schema"], json.loads(reply.body)) == []
    headers = {header.lower(): value for header, value in reply.headers.items() if header.lower() != "content-type"}
    allowed = {header.lower(): each for header, each in documented["headers"].items()}
    assert {header for header, each in allowed.items() if each["required"]} <= headers.keys() <= allowed.keys()
    for header, value in headers.items():
        is_number = allowed[header]["schema"]["type"] == "integer"
        assert errors(allowed[header]["schema"], int(value) if is_number else value) == []


def test_every_answer_of_the_document_is_one_that_a_route_can_give() -> None:
    documented = {(name, int(status)) for name, operation in OPERATIONS.items() for status in operation["responses"]}

    # The host answers 401.
    assert documented - {(name, 401) for name in OPERATIONS} == {(name, status) for name, status, _ in CASES}


async def test_the_document_can_be_asked_for() -> None:
    request = HttpRequest("GET", "https://app.example/api/openapi.json", body=b"")

    response = await FUNCTIONS["OpenApiRoute"].get_user_function()(request)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert json.loads(response.get_body()) == DOCUMENT


def test_the_page_for_those_who_are_lost_leads_to_the_document() -> None:
    assert b"GET /api/openapi.json" in routes.unknown_route("GET").body
