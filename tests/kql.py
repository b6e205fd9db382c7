"""KQL as the tests see it: the columns that a query has after each step, and the kinds of its joins.

It reads the part of the language that infra/queries uses, and refuses everything else: what it does not know is to be
added here. Types it does not know. The rules are those of learn.microsoft.com/kusto/query, for each operator by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.kql_tokens import KqlError, check_form, is_name, split, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

# Those columns of these tables that are used, with their types in MicrosoftDocs/azure-reference-other:
# azure-monitor-ref/tables/includes/apprequests-include.md and so on.
_ANY = {"TimeGenerated": "datetime", "Properties": "dynamic", "OperationId": "string", "Type": "string"}
_SPAN = _ANY | {"Name": "string", "DurationMs": "real", "Success": "bool", "ResultCode": "string"}
TABLES = {
    "AppRequests": _SPAN,
    "AppDependencies": _SPAN,
    "AppTraces": _ANY | {"Message": "string"},
    "AppExceptions": _ANY | {"OuterMessage": "string"},
}
TYPES = {name: kind for columns in TABLES.values() for name, kind in columns.items()}
SCALAR_FUNCTIONS = {"ago", "bin", "coalesce", "ingestion_time", "isnull", "now", "round", "tostring"}
AGGREGATIONS = {"arg_max", "arg_min", "count", "countif", "max", "percentile", "take_any"}
# What a join gives: the columns of the left side alone, or those of both.
LEFT_ONLY, BOTH = {"leftanti", "leftsemi"}, {"leftouter", "inner"}


@dataclass(slots=True)
class Query:
    """What was read: the result's columns in their order, the kinds of joins, and the tables outside fuzzy unions."""

    columns: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)


def read_query(text: str) -> Query:
    """Follow a query step by step.

    Raises:
        KqlError: it names a column that is not there at this step, or is not of the part that is read.
    """
    *definitions, last = split(tokens(text), ";")
    reader = _Reader()
    for definition in definitions:
        reader.define(definition)
    return Query(reader.pipeline(last), reader.joins, reader.needs)


class _Reader:
    """Follows the pipelines of one query; `joins` grows in the order of the text, and `needs` as tables are read."""

    def __init__(self) -> None:
        self.joins: list[str] = []
        self.needs: set[str] = set()
        self._tables: dict[str, list[str]] = {name: sorted(columns) for name, columns in TABLES.items()}
        self._scalars: set[str] = set()

    def define(self, definition: Sequence[str]) -> None:
        """Read `let name = …`, a table or a string."""
        match definition:
            case ["let", name, "=", literal] if literal.startswith('"'):
                self._scalars.add(name)
            case ["let", name, "=", *rest] if is_name(name):
                self._tables[name] = self.pipeline(rest)
            case _:
                raise KqlError(f"{' '.join(definition[:4])}: not a definition")

    def pipeline(self, text: Sequence[str]) -> list[str]:
        """Give the columns of a pipeline's result."""
        source, *steps = split(text, "|")
        columns = self._source(source)
        for step in steps:
            columns = self._step(step, columns)
        return columns

    def _source(self, source: Sequence[str]) -> list[str]:
        match source:
            case [name] if name in self._tables:
                self.needs |= {name} & set(TABLES)
                return self._tables[name]
            case ["(", *inner, ")"]:
                return self.pipeline(inner)
            case ["datatable", "(", *declared, ")", "[", "]"]:
                return [_declared(item) for item in split(declared, ",")]
            case ["union", "isfuzzy", "=", "true", *rest]:
                return self._fuzzy(split(rest, ","))
            case ["union", *rest]:
                return list(dict.fromkeys(column for part in split(rest, ",") for column in self._source(part)))
            case _:
                raise KqlError(f"{' '.join(source)}: no table")

    def _fuzzy(self, parts: Sequence[Sequence[str]]) -> list[str]:
        """Give the columns that are there whichever tables are: those of the empty one."""
        needed = set(self.needs)
        *tables, empty = [self._source(part) for part in parts]
        self.needs = needed
        if "datatable" not in parts[-1]:
            raise KqlError(f"{' '.join(parts[-1])}: an empty table is to be the last of a fuzzy union")
        if unknown := [column for column in empty if not any(column in columns for columns in tables)]:
            raise KqlError(f"{unknown[0]}: in the empty table only")
        return empty

    def _step(self, step: Sequence[str], columns: list[str]) -> list[str]:
        match step:
            case ["where", *condition]:
                self._check(condition, columns)
                return columns
            case ["extend", *rest]:
                added = [self._named(item, columns) for item in split(rest, ",")]
                return [*(column for column in columns if column not in added), *added]
            case ["project" | "distinct", *rest]:
                return [self._named(item, columns) for item in split(rest, ",")]
            case ["summarize", *rest]:
                return self._summarize(split(rest, "by"), columns)
            case ["order", "by", *rest]:
                for item in split(rest, ","):
                    if item[-1] not in {"asc", "desc"}:
                        raise KqlError(f"{' '.join(item)}: say asc or desc")
                    self._check(item[:-1], columns)
                return columns
            case ["join", "kind", "=", kind, *right, "on", key]:
                return self._join(kind, columns, right, key)
            case _:
                raise KqlError(f"{' '.join(step[:4])}: not a known step")

    def _summarize(self, parts: Sequence[Sequence[str]], columns: Sequence[str]) -> list[str]:
        match parts:
            case [aggregated, groups]:
                found = [name for item in split(aggregated, ",") for name in self._aggregated(item, columns)]
                return [*(self._named(item, columns) for item in split(groups, ",")), *found]
            case _:
                raise KqlError("summarize: say by what, once")

    def _join(self, kind: str, left: list[str], other: Sequence[str], key: str) -> list[str]:
        self.joins.append(kind)
        right = self._source(other)
        if key not in left or key not in right:
            raise KqlError(f"{key}: not on both sides of the join")
        if kind in LEFT_ONLY:
            return left
        if kind not in BOTH:
            raise KqlError(f"{kind}: not a known kind of join")
        # A column that both have comes twice, the second time with a number.
        return [*left, *(f"{column}1" if column in left else column for column in right)]

    def _named(self, item: Sequence[str], columns: Sequence[str]) -> str:
        """Read `Name = expression`, `Column`, or `bin(Column, …)`; gives the name."""
        match item:
            case [name, "=", *expression] if is_name(name):
                self._check(expression, columns)
                return name
            case [name] | ["bin", "(", name, *_]:
                self._check(item, columns)
                return name
            case _:
                raise KqlError(f"{' '.join(item)}: has no name")

    def _aggregated(self, item: Sequence[str], columns: Sequence[str]) -> list[str]:
        match item:
            case ["arg_max" | "arg_min", "(", *inner, ")"]:
                return [self._named(each, columns) for each in split(inner, ",")]
            case [name, "=", *expression] if AGGREGATIONS & set(expression):
                self._check(expression, columns, AGGREGATIONS)
                return [name]
            case _:
                raise KqlError(f"{' '.join(item)}: not an aggregation with a name")

    def _check(
        self, expression: Sequence[str], columns: Sequence[str], functions: AbstractSet[str] = frozenset()
    ) -> None:
        check_form(expression)
        around = ["", "", *expression, ""]
        for i, token in enumerate(around):
            if not is_name(token):
                continue
            is_known = token in columns or token in self._scalars
            if around[i + 1] == "(":
                is_known = token in SCALAR_FUNCTIONS | functions
            elif around[i - 2 : i] == ["in", "("]:
                is_known = token in self._tables
            if not is_known:
                raise KqlError(f"{token}: not there at this step")


def _declared(item: Sequence[str]) -> str:
    """Read `Name: type` of an empty table; two columns would come of a name with two types."""
    match item:
        case [name, ":", kind] if is_name(name) and kind == TYPES.get(name, kind) and kind in {*TYPES.values()}:
            return name
        case _:
            raise KqlError(f"{' '.join(item)}: not a column of that type")
