"""What the command prints: tables or JSON on stdout; progress, notices and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.errors import CommandError
    from relay.sending import SendingResult

_WIDE, _ENDLESS = 240, 1_000_000
_PLAIN_LINES_EVERY = 5.0
_RATE_OVER = 30.0
_MINUTE, _HOUR = 60, 3600


class Output:
    """Prints for people, or JSON for programs; then stdout has nothing but JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = _console(is_stderr=False)
        self.err = _console(is_stderr=True)

    def json(self, content: object) -> None:
        """Print one JSON document on one line."""
        sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Print a text, unless stdout is for JSON."""
        if not self.as_json:
            self.out.print(printable(text), soft_wrap=True)

    def notice(self, text: str) -> None:
        """Print on stderr what the user should know."""
        self.err.print(printable(text), soft_wrap=True)

    def error(self, error: CommandError) -> None:
        """Print an error and what to do next."""
        self.err.print(f"Error: {printable(error.message)}", style="red", soft_wrap=True)
        if error.advice:
            self.notice(error.advice)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table. Its cells are not cut off where stdout is no terminal, and an id is folded last."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=column == "ID" or not self.out.is_terminal)
        for row in rows:
            table.add_row(*("" if cell is None else printable(str(cell)) for cell in row))
        if not self.out.is_terminal:
            self.out.width = max(
                _WIDE, Measurement.get(self.out, self.out.options.update(width=_ENDLESS), table).maximum
            )
        self.out.print(table)


class SendingProgress:
    """The progress of a file on stderr, for `with`: a live bar on a terminal, else a line every few seconds."""

    def __init__(self, output: Output, now: float) -> None:
        self._output = output
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._samples = deque([(now, 0)])
        self._printed = now
        if output.err.is_terminal:
            columns = (BarColumn(), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=output.err, transient=True)
            self._task = self._bar.add_task("reading", total=None)
            self._bar.start()

    def show(self, result: SendingResult, share: float | None, now: float) -> None:
        """Show the state at `now`, in seconds; `share` is the part of the file that was read."""
        done = result.done.total() - result.resumed
        self._samples.append((now, done))
        while now - self._samples[0][0] > _RATE_OVER:
            self._samples.popleft()
        since, before = self._samples[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        text, total = progress_text(result, share, rate)
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=result.done.total(), total=total)
        elif now - self._printed >= _PLAIN_LINES_EVERY and not self._output.as_json:
            self._printed = now
            self._output.notice(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def progress_text(result: SendingResult, share: float | None, rate: float) -> tuple[str, float | None]:
    """Return one line about a run, and the number of records in the file as far as it is known.

    `rate` is in records per second.
    """
    done = result.done
    total = result.read / share if share else None
    of = "" if total is None else f" of {'' if share == 1 else 'about '}{total:,.0f}"
    lost = done.total() - done["created"] - done["exists"]
    parts = [f"{done.total():,}{of}", f"{rate:,.0f}/s", f"{lost:,} not delivered"]
    if total is not None and rate > 0:
        parts.append(f"{duration(max(0.0, total - done.total()) / rate)} left")
    return " · ".join(parts), total


def duration(seconds: float) -> str:
    """Return a duration as people say it: "12 s", "3 min", "1.5 h"."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"


def local_time(text: object) -> str:
    """Return an ISO time of the app in the time zone of this machine."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return "" if text is None else str(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def delivery_counts(delivery: dict[str, Any]) -> str:
    """Return the result of a delivery so far: its outcome and record, or the counts of its batch."""
    if "total" in delivery:
        names = ("created", "exists", "rejected", "expired", "pending")
        counts = ", ".join(f"{delivery[name]:,} {name}" for name in names if delivery.get(name))
        return f"{delivery['total']:,} records" + (f": {counts}" if counts else "")
    words = [str(delivery[name]) for name in ("recordId", "outcome") if delivery.get(name)]
    return " ".join(words)


def printable(text: str) -> str:
    """Return a text of the partner's without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def _console(*, is_stderr: bool) -> Console:
    console = Console(stderr=is_stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console
