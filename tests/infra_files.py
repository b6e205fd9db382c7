"""The files of infra/, as the tests of them share them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.bicep_template import Template, member, members, text

if TYPE_CHECKING:
    from tree_sitter import Node

PROJECT = Path(__file__).parent.parent
INFRA = PROJECT / "infra"
TEMPLATES = [Template.read(path) for path in sorted(INFRA.rglob("*.bicep"))]
BY_NAME = {template.path.stem: template for template in TEMPLATES}
MAIN = BY_NAME["main"]
QUERIES = sorted((INFRA / "queries").glob("*.kql"))
# How a template takes a query in.
LOADED = r"loadTextContent\('\.\./queries/([\w-]+)\.kql'\)"
each_template = pytest.mark.parametrize(
    "template", TEMPLATES, ids=lambda template: str(template.path.relative_to(INFRA))
)


def resource(template: str, name: str) -> Node:
    return BY_NAME[template].declarations("resource")[name].node


def value(node: Node, *path: str) -> str:
    """Give the text of a value, its spaces and lines made one space each."""
    return re.sub(r"\s+", " ", text(member(node, *path)))


def default(template: Template, kind: str, name: str) -> str:
    """Give the text of a variable's or an output's value, or of a parameter's default."""
    return text(template.declarations(kind)[name].node.named_children[-1])


def parameters_of_module(name: str) -> dict[str, str]:
    """Give what main hands to a module."""
    given = members(member(MAIN.declarations("module")[name].node, "params"))
    return {parameter: re.sub(r"\s+", " ", text(node)) for parameter, node in given.items()}


def settings_in_main() -> dict[str, str]:
    """Give the app settings that main makes in any case, with the expressions of their values."""
    union = member(MAIN.declarations("module")["functionApp"].node, "params", "appSettings")
    return {name: text(node) for name, node in members(union).items()}


def worker_settings() -> dict[str, str]:
    """Give the app settings that main makes for the worker's telemetry."""
    settings = MAIN.declarations("variable")["workerTelemetrySettings"].node
    return {name: text(node) for name, node in members(settings).items()}


def parameters_file() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((INFRA / "main.parameters.json").read_text())
    return {name: parameter["value"] for name, parameter in content["parameters"].items()}


def host_json() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PROJECT / "host.json").read_text())
    return content
