"""Bicep templates as the tests see them: what they declare, what they use, and the values that stand in them.

There is no Bicep compiler in PyPI or npm, so this reads the syntax tree of `tree-sitter-bicep` and checks names itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARSER = Parser(Language(tree_sitter_bicep.language()))
# `for x in …` declares an identifier, `for (x, i) in …` one of each of the others.
LOOP_VARIABLES = {"identifier", "loop_variable", "loop_enumerator"}
OUTPUT = re.compile(r"\b(\w+)!?\.outputs\.(\w+)")


def nodes(node: Node) -> Iterator[Node]:
    """Give the node and all below it, in the order of the text."""
    yield node
    for child in node.children:
        yield from nodes(child)


def text(node: Node) -> str:
    """Give a node's text; a string literal without its quotes."""
    content = (node.text or b"").decode()
    return content[1:-1] if node.type == "string" else content


def members(node: Node) -> dict[str, Node]:
    """Give the members of the first object at or below the node: the value's node by the member's name."""
    found = next(below for below in nodes(node) if below.type == "object")
    properties = [child for child in found.named_children if child.type == "object_property"]
    return {text(each.named_children[0]): each.named_children[-1] for each in properties}


def member(node: Node, *path: str) -> Node:
    """Give the value at a path of member names."""
    for name in path:
        node = members(node)[name]
    return node


def property_paths(node: Node, path: str = "") -> Iterator[str]:
    """Give the path of each property of the objects below a node that has no object below it, whatever the condition.

    A name that is computed is `*`.
    """
    inner = [child for child in node.named_children if child.type == "object_property"]
    for child in node.named_children:
        if child not in inner:
            yield from property_paths(child, path)
    for each in inner:
        name = text(each.named_children[0])
        here = f"{path}.{'*' if '$' in name else name}".removeprefix(".")
        yield from list(property_paths(each.named_children[-1], here)) or [here]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One parameter, variable, resource, module or output."""

    kind: str
    name: str
    node: Node
    decorators: str

    @property
    def has_default(self) -> bool:
        """Whether a parameter has a default value."""
        return any(child.type == "=" for child in self.node.children)

    @property
    def of(self) -> str:
        """The type of a resource with its API version, or the path of a module."""
        return text(next(child for child in self.node.named_children if child.type == "string"))


@dataclass(frozen=True, slots=True)
class Template:
    """One Bicep file."""

    path: Path
    root: Node

    @classmethod
    def read(cls, path: Path) -> Template:
        """Parse a file."""
        return cls(path, PARSER.parse(path.read_bytes()).root_node)

    @property
    def text(self) -> str:
        """The whole file."""
        return text(self.root)

    def syntax_errors(self) -> list[str]:
        """Give the line of each place that is not Bicep."""
        wrong = (node for node in nodes(self.root) if node.is_error or node.is_missing)
        return [f"{self.path.name}:{node.start_point.row + 1}" for node in wrong]

    def declarations(self, kind: str) -> dict[str, Declaration]:
        """Give the declarations of one kind ("parameter", "variable", "resource", "module", "output") by name."""
        found: dict[str, Declaration] = {}
        decorators = ""
        for node in self.root.named_children:
            if node.type == f"{kind}_declaration":
                name = text(node.named_children[0])
                found[name] = Declaration(kind, name, node, decorators)
            decorators = text(node) if node.type == "decorators" else ""
        return found

    def declared_names(self) -> set[str]:
        """Give the names that expressions of this file may use; outputs are none of them."""
        return {name for kind in ("parameter", "variable", "resource", "module") for name in self.declarations(kind)}

    def used_names(self) -> set[str]:
        """Give the names that expressions use, without functions and the variables of loops and lambdas."""
        return set(_used_names(self.root, frozenset()))

    def used_outputs(self) -> set[tuple[str, str]]:
        """Give the module and the name of each module output that this file uses."""
        return {(found[1], found[2]) for found in OUTPUT.finditer(self.text)}


def _used_names(node: Node, local: frozenset[str]) -> Iterator[str]:
    children = list(node.named_children)
    if node.type == "identifier":
        name = text(node)
        if name not in local:
            yield name
        return
    if node.type in {"object_property", "call_expression"} or node.type.endswith("_declaration"):
        # The first is a member's, a function's or a declaration's own name; a computed member name is a string.
        children = [child for i, child in enumerate(children) if i or child.type != "identifier"]
    elif node.type == "lambda_expression":
        local |= {text(children[0])}
    elif node.type == "for_statement":
        *loop, collection, body = children
        local |= {text(name) for part in loop for name in nodes(part) if name.type in LOOP_VARIABLES}
        children = [collection, body]
    elif node.type == "member_expression" and children[0].type == "lambda_expression":
        # The grammar reads `x => x.name` as `(x => x).name`.
        local |= {text(children[0].named_children[0])}
    for child in children:
        yield from _used_names(child, local)
