"""Legal shapes of record types and partners that are easily got wrong, and some that cannot work."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from msgspec import Meta, defstruct

from shared.errors import InvalidRecordError, ResourceError, SettingsError
from shared.resource import ApiResponse, LookUp, Partner, Post, Put, Record, Resource
from shared.rules.outcome import Outcome
from shared.rules.record import named_id, read_record
from shared.rules.strict_json import decode_exactly
from shared.rules.verdict import judge_look_up, judge_post
from shared.settings.app_settings import PartnerSettings

UPPER = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"


class Size(Enum):
    SMALL = "small"


def resource(id_type: object, look_up: LookUp | None = None, post: Post | None = None) -> Resource:
    fields: list[Any] = [("box_id", id_type)]
    model: Any = defstruct("Box", fields, bases=(Record,), kw_only=True)
    return Resource(
        model, route="boxes", id="box_id", partner=Partner("BOX"), post=post or Put("/b/{id}"), look_up=look_up
    )


def answer(body: bytes) -> ApiResponse:
    return ApiResponse(200, {}, body, decode_exactly(body))


@pytest.mark.parametrize(
    ("id_type", "text", "id_"),
    [
        (UUID, f'"{UPPER}"', UPPER),
        (Size, '"small"', "small"),
        (Literal["a", "b"], '"a"', "a"),
        (Annotated[int, Meta(ge=1)], "5", "5"),
        (str | int, "5", "5"),
        (int, "18446744073709551615", "18446744073709551615"),
    ],
)
def test_a_record_has_the_id_that_its_caller_sent(id_type: object, text: str, id_: str) -> None:
    box = resource(id_type, LookUp("/b/{id}"))
    record = read_record(box, f'{{"boxId": {text}}}'.encode())

    assert (record.id, named_id(box, record.content())) == (id_, id_)
    echo = answer(record.text)
    assert judge_post(box, record, echo, age=0, was_uncertain=False) == Outcome("created", id_, 200)
    assert judge_look_up(box, record, echo, age=0, was_uncertain=True) == Outcome("exists", id_, 200)


@pytest.mark.parametrize("sent", [UPPER, UPPER.replace("-", "")])
def test_a_uuid_that_the_partner_writes_in_another_way_is_the_same_id(sent: str) -> None:
    box = resource(UUID, LookUp("/b/{id}"))
    record = read_record(box, f'{{"boxId": "{sent}"}}'.encode())
    partner = answer(f'{{"boxId": "{UPPER.lower()}"}}'.encode())

    assert judge_post(box, record, partner, age=0, was_uncertain=False) == Outcome("created", sent, 200)
    assert judge_look_up(box, record, partner, age=0, was_uncertain=False) == Outcome("exists", sent, 200)


@pytest.mark.parametrize("id_type", [str | None, int | None, float, bool, list[str], dict[str, str], object])
def test_an_id_of_a_type_that_stands_in_no_url_is_refused_at_start(id_type: object) -> None:
    with pytest.raises(ResourceError, match=r"box_id|type <class 'object'> is not supported"):
        resource(id_type)


def test_a_decimal_id_must_be_sent_as_text() -> None:
    box = resource(Decimal)

    assert read_record(box, b'{"boxId": "1.50"}').id == "1.50"
    with pytest.raises(InvalidRecordError, match="must be text or a whole number"):
        read_record(box, b'{"boxId": 1.5}')


def test_a_setting_that_two_partners_would_read_is_a_problem() -> None:
    names = ["CRM", "CRM_TOKEN"]

    with pytest.raises(SettingsError, match="CRM_TOKEN_URL is a setting of two partners"):
        PartnerSettings.from_environ({"CRM_TOKEN_URL": "https://crm.example"}, "CRM", names)


def test_a_partner_may_have_a_name_that_begins_like_anothers() -> None:
    environ = {
        f"{name}_{key}": value
        for name in ("CRM", "CRM_API", "CRM_API_B")
        for key, value in {
            "URL": f"https://{name.lower().replace('_', '-')}.example",
            "TOKEN_URL": "https://id.example/token",
            "CLIENT_ID": name,
            "CLIENT_SECRET": "secret",
        }.items()
    }

    urls = [
        PartnerSettings.from_environ(environ, name, ["CRM", "CRM_API", "CRM_API_B"]).url for name in ("CRM", "CRM_API")
    ]

    assert urls == ["https://crm.example", "https://crm-api.example"]
