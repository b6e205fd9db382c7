"""The commands. Each reads its options, calls the app and prints; docs/reference/relay.md describes them."""

import asyncio
import json
import os
import re
import secrets
import shlex
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlsplit

import typer

from relay.app_client import AppClient, delivery_path, json_object, server_time
from relay.connection import find_connection, state_path
from relay.doctor import examine
from relay.errors import CommandError, ExitCode, usage_error
from relay.journal import Journal
from relay.output import Output, SendingProgress, delivery_counts, duration, local_time
from relay.record_files import FORMATS, UTF_8, RecordFile
from relay.record_types import choose, read_record_types
from relay.rejected_file import RejectedFile, rejected_path
from relay.sending import FINISHED, Sending, SendingResult

app = typer.Typer(
    help="Send records through Business Relay, and watch their deliveries.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Url = Annotated[str | None, typer.Option("--url", help="Root of the app. Else RELAY_URL or the configuration file.")]
Key = Annotated[str | None, typer.Option("--key", help="Function key. Else RELAY_KEY or the configuration file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a delivery.")]

FAILED = "partly,rejected,expired,failed"
# Seconds for which `send` waits for an app that is away, for example while it is deployed.
_PATIENCE = 300.0
_SINCE = re.compile(r"([0-9]{1,5})\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _run(url: str | None, key: str | None, output: Output, work: Callable[[AppClient], Awaitable[ExitCode]]) -> None:
    """Run a command to its exit code."""

    async def with_client() -> ExitCode:
        async with AppClient(find_connection(url, key, os.environ), notice=output.notice) as client:
            return await work(client)

    try:
        code = asyncio.run(with_client())
    except CommandError as exc:
        output.error(exc)
        code = exc.exit_code
    except BrokenPipeError:
        raise  # Whoever reads stdout has seen enough: Typer ends the process quietly.
    except OSError as exc:
        output.error(usage_error(f"{exc.filename or 'A file'} cannot be written: {exc.strerror}."))
        code = ExitCode.USAGE
    except KeyboardInterrupt:
        output.notice("Interrupted. What the app has accepted goes on there.")
        code = ExitCode.INTERRUPTED
    raise typer.Exit(code)


@app.command()
def send(  # noqa: PLR0913, options
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A .json, .ndjson or .csv file, also with .gz; - for standard input.")
    ],
    *,
    resource: Annotated[str | None, typer.Option(help="Record type; needed if the app has several.")] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="COLUMN=MEMBER", help="Member of a CSV column; COLUMN= ignores it. Repeatable."),
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help=f"{', '.join(FORMATS)}; else by the name.")] = None,
    encoding: Annotated[str, typer.Option(help="Of the file.")] = UTF_8,
    delimiter: Annotated[str | None, typer.Option(help="Of a CSV file; else the likeliest of , ; tab and |.")] = None,
    window: Annotated[int, typer.Option(min=1, max=64, help="Batches of 1,000 records under way at once.")] = 16,
    again: Annotated[bool, typer.Option("--again", help="Make new deliveries of a file that was sent before.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Send the records of a file. Run it again after an interruption: nothing is sent twice."""
    output = Output(as_json=as_json)

    async def work(client: AppClient) -> ExitCode:
        if format_ is not None and format_ not in FORMATS:
            raise usage_error(f"--format {format_} is not known.", f"Use {', '.join(FORMATS)}.")
        if delimiter is not None and len(delimiter) != 1:
            raise usage_error("--delimiter must be one character.")
        mapping = dict(_pair(each) for each in map_ or [])
        # What the mended file needs as well; the key is a secret.
        given: list[tuple[str, str | None]] = [("--map", each) for each in map_ or []]
        given += [("--resource", resource), ("--delimiter", delimiter), ("--url", url)]
        given += [("--encoding", encoding if encoding != UTF_8 else None)]
        options = [word for name, value in given if value is not None for word in (name, value)]
        with RecordFile(file, format_, encoding=encoding, delimiter=delimiter) as source:
            return await _send(
                client, output, source, resource, mapping, options=options, is_again=again, window=window
            )

    _run(url, key, output, work)


async def _send(  # noqa: PLR0913, the options
    client: AppClient,
    output: Output,
    source: RecordFile,
    resource: str | None,
    mapping: dict[str, str],
    *,
    options: list[str],
    is_again: bool,
    window: int,
) -> ExitCode:
    document = await client.call("GET", "openapi.json")
    type_ = choose(read_record_types(json_object(document)), resource)
    client.patience = _PATIENCE
    run = (client.connection.url, type_.route, source.path)
    begun = time.monotonic()
    with (
        Journal.open(state_path(os.environ), run, source, secrets.token_hex(8) if is_again else "") as journal,
        RejectedFile(rejected_path(source), source) as rejected,
        SendingProgress(output, begun) as progress,
    ):
        if journal.is_changed:
            output.notice(f"{source.name} was changed since it was sent in part: changed batches are sent anew.")
        sending = Sending(client, type_, journal, rejected, window=window, started=server_time(document))
        shown = asyncio.create_task(_show(progress, sending.result, source))
        try:
            await sending.run(source.read(type_, mapping, output.notice))
        except (CommandError, OSError, asyncio.CancelledError):
            if sending.result.read:
                output.notice("Run the same command again to go on. Nothing is sent twice.")
            raise
        finally:
            shown.cancel()
        journal.remove()
    again = shlex.join(["relay", "send", str(rejected.path), *options])
    return _report(output, type_.name, sending.result, rejected, time.monotonic() - begun, again=again)


async def _show(progress: SendingProgress, result: SendingResult, source: RecordFile) -> None:
    while True:
        progress.show(result, source.share, time.monotonic())
        await asyncio.sleep(0.25)


def _report(  # noqa: PLR0913, what there is to report
    output: Output, resource: str, result: SendingResult, rejected: RejectedFile, seconds: float, *, again: str
) -> ExitCode:
    """Print what became of the records; `again` is the command for those that were not delivered."""
    rate = (result.read - result.resumed) / seconds if seconds else 0.0
    undelivered, counts = result.undelivered, dict(+result.counts)
    if output.as_json:
        output.json(
            {
                "resource": resource,
                "records": result.read,
                "delivered": result.read - undelivered,
                "undelivered": undelivered,
                "counts": counts,
                "resumed": result.resumed,
                "rejectedFile": str(rejected.path) if rejected.count else None,
                "seconds": round(seconds, 1),
                "recordsPerSecond": round(rate),
                "deliveries": result.deliveries,
            }
        )
    words = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    output.text(f"{result.read:,} records in {duration(seconds)} ({rate:,.0f}/s): {words or 'none'}")
    if result.resumed:
        output.text(f"{result.resumed:,} of them were finished by the interrupted run.")
    if undelivered:
        output.text(f"The {undelivered:,} that were not delivered are in {rejected.path}, each with the reason.")
        output.text(f"Mend them there, then: {again}")
        if result.is_repeated:
            output.text("Some results are those of an earlier run. To try the same records again, add --again.")
    return ExitCode.UNDELIVERED if undelivered else ExitCode.OK


@app.command("ls")
def list_deliveries(  # noqa: PLR0913, options
    *,
    failed: Annotated[bool, typer.Option("--failed", help=f"Short for --state {FAILED}.")] = False,
    since: Annotated[str | None, typer.Option(help="30m, 12h, 7d or an ISO time. Default: 24 hours ago.")] = None,
    resource: Annotated[str | None, typer.Option(help="Record type.")] = None,
    state: Annotated[str | None, typer.Option(help="States, separated by commas.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Deliveries at most.")] = 100,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first."""
    output = Output(as_json=as_json)

    async def work(client: AppClient) -> ExitCode:
        wished = {
            "state": FAILED if failed else state,
            "resource": resource,
            "from": None if since is None else _moment(since, datetime.now(UTC)),
            "top": str(min(limit, 100)),
        }
        params: dict[str, str] | None = {name: value for name, value in wished.items() if value}
        found: list[dict[str, Any]] = []
        while params is not None and len(found) < limit:
            page = await client.json("GET", "deliveries", params)
            found += page["deliveries"]
            # Only the query: the link may name a host that is not reached from here.
            link = page.get("nextLink")
            params = dict(parse_qsl(urlsplit(link).query)) if link else None
        for delivery in found[:limit] if as_json else ():
            output.json(delivery)
        if not as_json and found:
            columns = ("ID", "RESOURCE", "STATE", "CREATED", "RESULT", "REASON")
            output.table(columns, [_row(delivery) for delivery in found[:limit]])
        if params is not None or len(found) > limit:
            output.notice(f"There are more. Add --limit {10 * limit}, or choose with --since and --state.")
        elif not found:
            output.notice("No deliveries. --since 7d looks further back than 24 hours.")
        return ExitCode.OK

    _run(url, key, output, work)


@app.command()
def show(
    id_: Id,
    *,
    records: Annotated[bool, typer.Option("--records", help="Also the outcome of each record of a batch.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show one delivery."""
    output = Output(as_json=as_json)

    async def work(client: AppClient) -> ExitCode:
        delivery = await client.json("GET", delivery_path(id_), {"records": "true"} if records else None)
        if as_json:
            output.json(delivery)
        else:
            _describe(output, delivery)
        return ExitCode.OK

    _run(url, key, output, work)


@app.command()
def watch(id_: Id, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Watch a delivery to its end. With --json a line for each change."""
    output = Output(as_json=as_json)

    async def work(client: AppClient) -> ExitCode:
        client.patience = _PATIENCE
        last = ""
        pause = 0.5
        while True:
            delivery = await client.json("GET", delivery_path(id_))
            line = " · ".join(str(part) for part in _row(delivery)[2:] if part)
            if line != last:
                output.json(delivery) if as_json else output.text(line)
            if delivery["state"] in FINISHED:
                return ExitCode.OK if delivery["state"] == "delivered" else ExitCode.UNDELIVERED
            last, pause = line, min(pause * 1.2, 5.0)
            await client.sleep(pause)

    _run(url, key, output, work)


@app.command()
def redeliver(id_: Id, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Deliver again what a delivery has left undelivered."""
    _act(id_, "redeliver", url, key, as_json=as_json)


@app.command()
def cancel(id_: Id, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Cancel a delivery that is under way."""
    _act(id_, "cancel", url, key, as_json=as_json)


@app.command()
def get(
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="Record type.")],
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of a record.")],
    *,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print the partner's record with an id, as JSON."""
    output = Output(as_json=as_json)

    async def work(client: AppClient) -> ExitCode:
        type_ = choose(read_record_types(await client.json("GET", "openapi.json")), resource)
        answer = await client.call("GET", f"{type_.route}/{quote(id_, safe='')}")
        # As the partner wrote it: a number is not rounded.
        typer.echo(answer.text)
        return ExitCode.OK

    _run(url, key, output, work)


@app.command()
def doctor(*, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Find out why something does not work, and say what to do."""
    output = Output(as_json=as_json)

    async def work(client: AppClient) -> ExitCode:
        checks = []
        async for check in examine(client):
            checks.append(check)
            output.text(f"{'ok' if check.exit_code == ExitCode.OK else 'PROBLEM':8}{check.name}: {check.detail}")
            if check.advice:
                output.text(f"        {check.advice}")
        worst = max(check.exit_code for check in checks)
        if as_json:
            content = [
                {"name": each.name, "ok": not each.exit_code, "detail": each.detail, "advice": each.advice}
                for each in checks
            ]
            output.json({"ok": not worst, "checks": content})
        return worst

    _run(url, key, output, work)


def _act(id_: str, action: str, url: str | None, key: str | None, *, as_json: bool) -> None:
    output = Output(as_json=as_json)

    async def work(client: AppClient) -> ExitCode:
        delivery = await client.json("POST", f"{delivery_path(id_)}/{action}")
        if as_json:
            output.json(delivery)
        output.text(f"{delivery['id']}: {delivery['state']}. Watch it: relay watch {delivery['id']}")
        return ExitCode.OK

    _run(url, key, output, work)


def _row(delivery: dict[str, Any]) -> tuple[object, ...]:
    reason = delivery.get("reason")
    if delivery.get("nextAttempt"):
        reason = f"next attempt {local_time(delivery['nextAttempt'])}: {reason or 'it waits'}"
    uncertain = " (it may have arrived)" if delivery.get("uncertain") else ""
    created = local_time(delivery.get("createdTime"))
    names = (delivery["id"], delivery.get("resource"), delivery["state"], created, delivery_counts(delivery))
    return (*names, f"{reason or ''}{uncertain}")


def _describe(output: Output, delivery: dict[str, Any]) -> None:
    apart = {"customStatus", "output", "records", "rejections"}
    for name, value in delivery.items():
        if value is not None and name not in apart and not name.endswith("Uri"):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            output.text(f"{name:18}{local_time(value) if name.endswith('Time') else text}")
    if records := delivery.get("records") or delivery.get("rejections"):
        shown = ("index", "recordId", "state", "status", "reason")
        rows = [[each.get(name) for name in shown] for each in records]
        output.table([name.upper() for name in shown], rows)


def _pair(text: str) -> tuple[str, str]:
    column, equals, member = text.partition("=")
    if not equals:
        raise usage_error(f"--map {text} has no equals sign.", "Write --map COLUMN=MEMBER.")
    return column, member


def _moment(text: str, now: datetime) -> str:
    """Return a time before now ("12h") or an ISO time as an ISO time with its time zone."""
    if match := _SINCE.fullmatch(text.strip()):
        moment = now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    else:
        try:
            moment = datetime.fromisoformat(text).astimezone()
        except (ValueError, OverflowError):
            raise usage_error(f"--since {text} is not a time.", "Write 30m, 12h, 7d or 2026-01-31T12:00.") from None
    return moment.isoformat(timespec="seconds")
