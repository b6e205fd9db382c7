"""docs/operations.md says what the code does: its log lines, its numbers, its words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from shared.delivery import partner_gate, verdict
from tests.setting_names import setting_names

PROJECT = Path(__file__).parent.parent
PAGE = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((PROJECT / "shared").rglob("*.py"))}
# Both are logged by one function, which is given the event.
EVENTS = {"orchestration not found out", "orchestration not started"}
LEVELS = {"info", "warning", "error", "log"}


def log_events() -> set[str]:
    """Give the event of every log line of the delivery."""
    events = set(EVENTS)
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            is_log = isinstance(node, ast.Call) and ast.unparse(node.func) in {f"logger.{level}" for level in LEVELS}
            if is_log and path.parent.name == "delivery":
                assert isinstance(node, ast.Call)
                texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
                events |= {text for text in texts if isinstance(text, str)}
    return events


@pytest.mark.parametrize("event", sorted(log_events()))
def test_every_log_line_of_a_delivery_is_on_the_page(event: str) -> None:
    assert f"`{event}`" in PAGE


def test_the_events_that_are_logged_through_a_function_are_there() -> None:
    folder = PROJECT / "shared" / "delivery"
    source = SOURCES[folder / "durable_client.py"] + SOURCES[folder / "starting.py"]
    assert all(f'unavailable("{event}", ' in source for event in EVENTS)


@pytest.mark.parametrize(
    "words",
    [
        f"answered within the last {partner_gate.TRUST:g} s",
        f"Otherwise {partner_gate.FEW} do",
        f"{partner_gate.FAILURES} attempts that the partner caused",
        f"closes for {partner_gate.FIRST_CLOSURE:g} s",
        f"{partner_gate.LONGEST_CLOSURE:g} s at most",
        f"asked by up to {40 * partner_gate.FEW}",
        f"After {verdict.TOKEN_PATIENCE / 60:g} minutes",
    ],
)
def test_the_numbers_on_the_page_are_those_of_the_code(words: str) -> None:
    assert words in WORDS


@pytest.mark.parametrize(
    "reason",
    [
        "The partner is in trouble and was not asked; it will be in ",
        "a fault of its own",
        "that is: not now",
        "with a body that is not JSON",
        "a fresh access token is refused",
        "The API could not be reached: ",
        "The API gave no whole response: ",
        "No access token can be had: ",
        "The app settings are not usable",
        "The records of the batch cannot be read now",
        "The partner has this external id with other content; different: ",
        "The token endpoint refused the client: ",
        "was given up after ",
        "was rejected after ",
        "The delivery could not be started; nothing was.",
        "The state of the delivery cannot be read now.",
    ],
)
def test_a_reason_on_the_page_is_one_of_the_code(reason: str) -> None:
    assert reason in PAGE
    assert any(reason in source for source in SOURCES.values())


def test_every_setting_on_the_page_is_one() -> None:
    named = set(re.findall(r"`((?:BUSINESS_API|DELIVERY|TOKEN)_[A-Z_]+)(?:=\w+)?`", PAGE))

    assert len(named) > 8
    assert named <= setting_names()
