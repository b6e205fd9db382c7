"""From a CSV row to a record's JSON text. The types are those of the record's schema."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.errors import usage_error
from relay.record_types import Schema, read_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from relay.record_types import RecordType

# RFC 8259 section 6: a number goes into the record exactly as the cell has it.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": "true", "yes": "true", "1": "true", "false": "false", "no": "false", "0": "false"}
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(slots=True)
class Member:
    """A member of the record: a column of the file, or an object or list of further members."""

    schema: Schema
    is_required: bool = True
    column: int | None = None
    children: dict[str, Member] = field(default_factory=dict)
    columns: list[int] = field(default_factory=list)

    def text(self, row: Sequence[str], pointer: str, faults: list[str]) -> str | None:
        """Return the JSON text of the member, None where it is left out; append to `faults` what cannot be converted.

        An empty cell becomes null where the schema allows null, and is left out where the member is optional. An object
        or list whose cells are all empty is treated in the same way.
        """
        kinds = self.schema.kinds
        cells = [row[column] for column in self.columns]
        # White space is a text, but neither a number nor JSON.
        if any(cell if "string" in kinds else cell.strip() for cell in cells):
            if self.column is None:
                return self._container(row, pointer, faults)
            return _converted(cells[0], self.schema, pointer, faults)
        if self.schema.is_nullable:
            return "null"
        if self.is_required and self.column is not None and "string" not in kinds:
            faults.append(f"{pointer}: is empty, must be {_expected(self.schema)}")
        if not self.is_required or self.column is not None:
            return '""' if self.is_required and "string" in kinds else None
        return self._container(row, pointer, faults)

    def _container(self, row: Sequence[str], pointer: str, faults: list[str]) -> str:
        if "array" in self.schema.kinds and "object" not in self.schema.kinds:
            elements = [
                child for child in self.children.values() if any(row[column].strip() for column in child.columns)
            ]
            texts = (child.text(row, f"{pointer}/{index}", faults) for index, child in enumerate(elements))
            return f"[{','.join(text for text in texts if text is not None)}]"
        members = ((name, child.text(row, f"{pointer}/{name}", faults)) for name, child in self.children.items())
        return "{" + ",".join(f"{_encode(name)}:{text}" for name, text in members if text is not None) + "}"


@dataclass(frozen=True, slots=True)
class CsvRecord:
    """Converts rows of one file. `notices` are what the user should know of the columns."""

    root: Member
    notices: list[str]

    def convert(self, row: Sequence[str]) -> tuple[bytes, str | None]:
        """Return the record's JSON text, and what is wrong with the row if anything is."""
        faults: list[str] = []
        text = self.root.text(row, "", faults)
        return (text or "{}").encode(), "; ".join(faults) or None


def csv_record(
    type_: RecordType, header: Sequence[str], mapping: Mapping[str, str], ignored: Iterable[str]
) -> CsvRecord:
    """Match columns with members. `mapping` names the member of a column, "" to ignore the column.

    A column without a mapping is the member of the same name; case, spaces, "_" and "-" do not count. "address.city"
    and "/address/city" are members of members. `ignored` columns are skipped unless they are mapped.

    Raises:
        CommandError: a mapping names no column, two columns are one member, or a required member has no column.
    """
    columns = ", ".join(header)
    if unknown := [column for column in mapping if column not in header]:
        raise usage_error(
            f"--map names the column {unknown[0]!r}, which the file does not have.", f"It has: {columns}."
        )
    if repeated := [column for column in header if column and header.count(column) > 1]:
        raise usage_error(f"The file has the column {repeated[0]!r} twice.", "Rename one of them in the file.")
    skipped = set(ignored)
    root = Member(type_.schema)
    passed_on = []
    for index, column in enumerate(header):
        target = mapping.get(column, "" if column in skipped else column)
        if not target:
            continue
        path = _path(target, type_.schema, is_exact=column in mapping)
        if path[0] not in (type_.schema.properties or {}):
            if not type_.schema.is_open:
                advice = (
                    f"Members: {', '.join(type_.schema.properties or {})}. Ignore the column with --map '{column}='."
                )
                raise usage_error(f"{type_.name} has no member for the column {column!r}.", advice)
            passed_on.append(column)
        _place(root, path, index, column)
    if missing := [name for name in type_.schema.properties or {} if name in type_.schema.required - {*root.children}]:
        maps = " ".join(f"--map COLUMN={name}" for name in missing)
        named = f"member {missing[0]!r}" if len(missing) == 1 else f"members {', '.join(map(repr, missing))}"
        raise usage_error(
            f"No column is the required {named} of {type_.name}.", f"The file has: {columns}. Add {maps}."
        )
    notices = [f"Passed on as text, because {type_.name} does not describe them: {', '.join(passed_on)}"]
    return CsvRecord(root, notices if passed_on else [])


def _place(root: Member, path: Sequence[str], index: int, column: str) -> None:
    member = root
    member.columns.append(index)
    for name in path:
        if member.column is not None:
            raise usage_error(f"The column {column!r} is a member of a member that is a column itself.", "Use --map.")
        if name not in member.children:
            schema = member.schema.member(name) or read_schema({"type": ["string", "null"]}, {})
            member.children[name] = Member(schema, name in member.schema.required)
        member = member.children[name]
        member.columns.append(index)
    if len(member.columns) > 1:
        raise usage_error(
            f"The column {column!r} and another one are the same member.", "Use --map to tell them apart."
        )
    member.column = index


def _path(target: str, schema: Schema, *, is_exact: bool) -> list[str]:
    """Return the names that lead to a member."""
    if target.startswith("/"):
        return [part.replace("~1", "/").replace("~0", "~") for part in target[1:].split("/")]
    if target in (schema.properties or {}):
        return [target]
    names = target.split(".")
    path, here = [], schema
    for name in names:
        known = here.properties or {}
        similar = [each for each in known if _plain(each) == _plain(name)]
        path.append(similar[0] if name not in known and len(similar) == 1 and not is_exact else name)
        here = here.member(path[-1]) or read_schema({}, {})
    # A dot in a name that the schema does not describe is part of the name.
    return path if path[0] in (schema.properties or {}) else [target]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _converted(cell: str, schema: Schema, pointer: str, faults: list[str]) -> str | None:
    kinds, text = schema.kinds, cell.strip()
    if not kinds or kinds == {"string"}:
        return _encode(cell)
    if ("number" in kinds and _NUMBER.fullmatch(text)) or ("integer" in kinds and _INTEGER.fullmatch(text)):
        return text
    if "boolean" in kinds and (boolean := _BOOLEANS.get(text.casefold())):
        return boolean
    if kinds & {"array", "object"}:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, tuple({"array": list, "object": dict}[kind] for kind in kinds & {"array", "object"})):
            return text
    if "string" in kinds:
        return _encode(cell)
    faults.append(f"{pointer}: must be {_expected(schema)}, not {cell[:40]!r}")
    return None


def _expected(schema: Schema) -> str:
    words = {
        "integer": "a whole number such as 12",
        "number": "a number such as 12.50",
        "boolean": "true or false",
        "array": "a JSON array",
        "object": "a JSON object",
    }
    return " or ".join(words[kind] for kind in words if kind in schema.kinds) or "a text"
