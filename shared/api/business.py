"""The business record: the model to change to your own, and its checks.

Add a member to `Business` to have it checked: `city: Annotated[str, Meta(max_length=100)]`, or
`vat_id: str | None = None` for one that may be missing. Members that the model does not name are passed on unchanged.
Change sandbox/sample.json with it: the demo, the trial of a package and the tests make their records of that one.
`Meta(examples=["Kiel"])` puts a member into the example of the OpenAPI document, which has one if no required member
is without.
"""

from __future__ import annotations

import unicodedata
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from shared.api import strict_json
from shared.errors import Fault, InvalidBusinessError

if TYPE_CHECKING:
    from typing import Self

MAX_BYTES = 64 * 1024
"""The most bytes that a record may have, as JSON in UTF-8."""


class Business(msgspec.Struct, frozen=True, kw_only=True, rename="camel", dict=True):
    """The members of a record that are checked; `record` is the whole of it, as it is sent on."""

    external_id: Annotated[
        str, Meta(min_length=1, max_length=128, description="The caller's id of the business.", examples=["crm-1001"])
    ]
    name: Annotated[
        str, Meta(min_length=1, max_length=256, description="The name of the business.", examples=["Nordwind GmbH"])
    ]
    # An object, as `from_json` sees to; msgspec would copy what is annotated as one.
    record: Annotated[Any, Meta(description="The whole record.")] = msgspec.field(name="$record")

    @classmethod
    def from_json(cls, record: object, text: bytes | None = None) -> Self:
        """Check a decoded record; `text` is what `encode` is going to give, where that is known.

        Raises:
            InvalidBusinessError: it lists every member that breaks a rule.
        """
        if not isinstance(record, dict):
            raise InvalidBusinessError([Fault("", "must be a JSON object")])
        try:
            business = msgspec.convert({**record, "$record": record}, cls)
        except msgspec.ValidationError:
            raise InvalidBusinessError(_faults(cls, record)) from None
        if faults := _external_id_faults(business.external_id, "/externalId"):
            raise InvalidBusinessError(faults)
        if text is not None:
            vars(business)["_text_of_record"] = text
        return business

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Check a record as JSON text in UTF-8.

        Raises:
            InvalidBusinessError: the text is not JSON, is too large, or the record breaks a rule.
        """
        if len(text) > MAX_BYTES:
            raise InvalidBusinessError([Fault("", f"has {len(text)} bytes, more than the {MAX_BYTES} allowed")])
        try:
            record, is_as_written = strict_json.decode_text(text)
            return cls.from_json(record, text if is_as_written else None)
        except strict_json.JsonError as exc:
            raise InvalidBusinessError([exc.fault]) from None

    def to_json(self) -> dict[str, Any]:
        """Give the record as a plain object."""
        record: dict[str, Any] = self.record
        return record

    def encode(self) -> bytes:
        """Give the record as JSON text in UTF-8, as it was the first time: nobody changes a record."""
        return self._text_of_record

    @cached_property
    def _text_of_record(self) -> bytes:
        return msgspec.json.encode(self.record)


def check_external_id(external_id: str) -> None:
    """Refuse an external id that cannot stand in a URL's path or in a log line.

    Raises:
        InvalidBusinessError: it is empty, too long, "." or "..", or has a control character or a lone surrogate.
    """
    if faults := _external_id_faults(external_id, pointer=""):
        raise InvalidBusinessError(faults)


def _external_id_faults(external_id: str, pointer: str) -> list[Fault]:
    if not 1 <= len(external_id) <= 128:  # noqa: PLR2004, the model's bounds, as its annotation says
        return [Fault(pointer, "must have 1 to 128 characters")]
    if external_id in {".", ".."}:
        return [Fault(pointer, 'must not be "." or "..": a URL takes them for folders')]
    # Nothing printable is one of these: most ids need no look at each of their characters.
    if not external_id.isprintable() and any(unicodedata.category(char) in {"Cc", "Cs"} for char in external_id):
        return [Fault(pointer, "must not have control characters")]
    return []


def _faults(model: type[Business], record: dict[str, Any]) -> list[Fault]:
    """Check member by member: msgspec stops at the first fault, a caller wants them all."""
    faults = []
    for field in msgspec.structs.fields(model):
        if field.encode_name == "$record":
            continue
        pointer = "/" + field.encode_name.replace("~", "~0").replace("/", "~1")
        if field.encode_name not in record:
            if field.required:
                faults.append(Fault(pointer, "is missing"))
            continue
        try:
            msgspec.convert(record[field.encode_name], field.type)
        except msgspec.ValidationError as exc:
            faults.append(_fault(pointer, str(exc)))
        else:
            if field.name == "external_id":
                faults += _external_id_faults(record[field.encode_name], pointer)
    return faults


def _fault(pointer: str, message: str) -> Fault:
    """Turn msgspec's "Expected `str`, got `int` - at `$.a[0]`" into a JSON Pointer and a sentence's end."""
    expected, _, place = message.partition(" - at ")
    detail = expected.replace("`", "").replace("Expected", "must be", 1)
    # "[...]" stands for a member of an object whose name msgspec does not say.
    path = place.rpartition("$")[2].partition("[...]")[0].rstrip("`")
    return Fault(pointer + path.replace("[", "/").replace("]", "").replace(".", "/"), detail)
