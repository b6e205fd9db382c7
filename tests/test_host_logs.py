"""What a log line of the sandbox's host and its worker process looks like."""

from __future__ import annotations

import io
import json
import logging
import re
import time

import pytest

from sandbox.host.logs import LineFormatter

# 2026-11-23, 8:15:30.042 of this machine's time.
CREATED = time.mktime((2026, 11, 23, 8, 15, 30, 0, 0, -1)) + 0.0421
ATTEMPT = {
    "instance_id": "key-173d0ddbff034193face7ce60d3f58b416940a4c",
    "external_id": "crm-4711",
    "attempt": 1,
    "outcome": "deferred",
    "status": 503,
    "reason": "The partner answered 503, a fault of its own",
}


class Log:
    """A logger that writes as the host's processes do, and what it has written."""

    def __init__(self) -> None:
        self._written = io.StringIO()
        handler = logging.StreamHandler(self._written)
        handler.setFormatter(LineFormatter())
        # Not one of the process's loggers: nothing else hears it.
        self.logger = logging.Logger("shared.test", logging.DEBUG)  # noqa: LOG001, it would be one of them
        self.logger.addHandler(handler)

    @property
    def written(self) -> str:
        return self._written.getvalue()

    @property
    def said(self) -> str:
        """What stands behind the time, the level and the name."""
        return self.written.partition(" shared.test: ")[2]


@pytest.fixture
def log() -> Log:
    return Log()


def line(**fields: object) -> str:
    record = logging.makeLogRecord({"name": "shared.delivery.activities", "msg": "delivery attempt", **fields})
    record.levelname = "WARNING"
    record.created = CREATED
    record.msecs = CREATED % 1 * 1000
    return LineFormatter().format(record)


def test_a_line_has_its_time_level_logger_message_and_fields() -> None:
    assert line(**ATTEMPT) == (
        "2026-11-23 08:15:30,042 WARNING shared.delivery.activities: delivery attempt "
        "instance_id=key-173d0ddbff034193face7ce60d3f58b416940a4c external_id=crm-4711 attempt=1 outcome=deferred "
        'status=503 reason="The partner answered 503, a fault of its own"'
    )


def test_a_line_without_fields_ends_with_its_message(log: Log) -> None:
    log.logger.info("%s in %d s", "An echo", 2)

    assert re.fullmatch(r"[\d-]{10} [\d:]{8},\d{3} INFO    shared\.test: An echo in 2 s\n", log.written)


def test_what_logging_itself_knows_of_a_record_is_not_among_the_fields() -> None:
    record = logging.makeLogRecord({"msg": "event"})
    # Another handler leaves its text and time in the record.
    logging.Formatter("%(asctime)s %(message)s").format(record)

    assert LineFormatter().format(record).endswith(": event")


def test_uvicorn_s_message_with_colours_is_not_shown_beside_the_one_without(log: Log) -> None:
    log.logger.info("event", extra={"color_message": "\x1b[1mevent\x1b[0m"})

    assert log.said == "event\n"


def test_a_field_of_none_is_left_out_and_one_that_is_false_or_empty_is_not(log: Log) -> None:
    log.logger.info("event", extra={"status": None, "pause": 0, "is_late": False, "reason": ""})

    assert log.said == 'event pause=0 is_late=False reason=""\n'


@pytest.mark.parametrize("value", ["plain", "a=b", "a\\b", "Zürich", "東京", "1.5", "[1]", "'"])
def test_a_value_that_is_one_printable_word_stands_as_it_is(log: Log, value: str) -> None:
    log.logger.info("event", extra={"external_id": value})

    assert log.said == f"event external_id={value}\n"


def test_what_is_no_text_is_shown_as_its_text(log: Log) -> None:
    log.logger.info("event", extra={"problems": ["a", "b"], "seconds": 1.5})

    assert log.said == "event problems=\"['a', 'b']\" seconds=1.5\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Ada Löw", '"Ada Löw"'),
        ('say "no"', r'"say \"no\""'),
        (
            "1\n2026-11-23 08:15:30,042 INFO    shared: delivered",
            r'"1\n2026-11-23 08:15:30,042 INFO    shared: delivered"',
        ),
        ("a\rb\tc\x00\x7f", r'"a\rb\tc\u0000\u007f"'),
        ("\x1b[2J\x1b]0;owned\x07", r'"\u001b[2J\u001b]0;owned\u0007"'),
        # C1's CSI; a line separator and a next line; text that runs backwards; half a character; a space of its own.
        ("\x9b2J", r'"\u009b2J"'),
        ("a\u2028b\u0085c", r'"a\u2028b\u0085c"'),
        ("a\u202eb", r'"a\u202eb"'),
        ("ü\ud800", r'"\u00fc\ud800"'),
        ("a\u00a0b", r'"a\u00a0b"'),
    ],
)
def test_a_hostile_value_stays_one_printable_line_and_can_be_read_back(log: Log, value: str, shown: str) -> None:
    log.logger.info("event", extra={"external_id": value, "attempt": 1})

    assert log.said == f"event external_id={shown} attempt=1\n"
    assert log.written[:-1].isprintable()
    assert json.loads(shown) == value


def test_an_error_has_its_traceback_below_the_line_with_its_fields(log: Log) -> None:
    try:
        raise ValueError("odd")  # noqa: TRY301, where it is raised does not matter
    except ValueError:
        log.logger.exception("event", extra={"instance_id": "i"})

    first, second, *_, last = log.said.splitlines()
    assert (first, second) == ("event instance_id=i", "Traceback (most recent call last):")
    assert last == "ValueError: odd"


def test_each_second_has_its_own_text_and_each_line_its_milliseconds() -> None:
    formatter = LineFormatter()
    times = []
    for milliseconds in (0, 1, 999, 1000, 61_000, 0):
        record = logging.makeLogRecord({"msg": "event", "created": CREATED // 1 + milliseconds // 1000})
        record.msecs = float(milliseconds % 1000)
        times.append(formatter.format(record).partition(" None ")[0].removeprefix("2026-11-23 "))

    assert [each[:12] for each in times] == [
        "08:15:30,000",
        "08:15:30,001",
        "08:15:30,999",
        "08:15:31,000",
        "08:16:31,000",
        "08:15:30,000",
    ]
