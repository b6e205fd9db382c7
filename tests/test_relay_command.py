from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner

from relay.command import app as relay
from relay.connection import DEFAULT_URL, find_connection
from relay.errors import CommandError, ExitCode
from relay.output import printable, progress_text
from relay.sending import SendingResult
from tests.fakes.relay_app import RelayApp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result

KEY = "function-key-1"
PROJECT = Path(__file__).parents[1]


@pytest.fixture
def app() -> Iterator[RelayApp]:
    with RelayApp(key=KEY, rejected={"bad"}) as app:
        yield app


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("parcelId,city\np1,Ulm\nbad,Ulm\np2,Ulm\n")
    return path


def environ(app: RelayApp | None, tmp_path: Path, key: str = KEY) -> dict[str, str]:
    return {
        "RELAY_URL": app.url if app else "http://127.0.0.1:1",
        "RELAY_KEY": key,
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        # A folder without certificates: to load those of the internet's authorities would take longer than most tests.
        "SSL_CERT_FILE": "",
        "SSL_CERT_DIR": str(tmp_path),
    }


def run(app: RelayApp | None, tmp_path: Path, *args: str, key: str = KEY) -> Result:
    result = CliRunner().invoke(relay, args, env=environ(app, tmp_path, key))
    assert key not in result.output
    assert "Traceback" not in result.output
    return result


def started(app: RelayApp, tmp_path: Path, *args: str) -> subprocess.Popen[str]:
    """Start `python -m relay` as a process of its own."""
    env = os.environ | environ(app, tmp_path) | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "relay", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe, text=True)  # noqa: S603, our own command


def test_send_says_what_became_of_the_records_and_what_to_do(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    result = run(app, tmp_path, "send", str(csv_file))
    assert result.exit_code == ExitCode.UNDELIVERED
    assert "2 created, 1 rejected" in result.stdout
    assert f"relay send {tmp_path}/a.rejected.csv" in result.stdout
    assert set(app.keys) == {KEY}


def test_the_command_for_the_mended_file_has_the_options_that_it_needs(app: RelayApp, tmp_path: Path) -> None:
    path = tmp_path / "a b.csv"
    path.write_text("Parcel no;city\nbad;Ulm\n")
    options = ["--map", "Parcel no=parcelId", "--resource", "parcels", "--delimiter", ";", "--url", app.url]

    result = run(app, tmp_path, "send", str(path), *options)

    command = shlex.split(result.stdout.partition("then: ")[2])
    assert command == ["relay", "send", str(tmp_path / "a b.rejected.csv"), *options]
    assert run(app, tmp_path, *command[1:]).exit_code == ExitCode.UNDELIVERED


def test_send_prints_one_json_document(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    report = json.loads(run(app, tmp_path, "send", str(csv_file), "--json").stdout)
    assert report["counts"] == {"created": 2, "rejected": 1}
    assert report["deliveries"] == ["parcel-0"]


def test_send_reads_standard_input(app: RelayApp, tmp_path: Path) -> None:
    with started(app, tmp_path, "send", "-", "--format", "ndjson", "--json") as process:
        output, said = process.communicate('{"parcelId":"p1","city":"Ulm"}\n')
    assert (process.returncode, said) == (0, "")
    assert json.loads(output)["delivered"] == 1


def test_a_run_that_is_killed_twice_sends_every_record_once(app: RelayApp, tmp_path: Path) -> None:
    ids = [f"p{n}" for n in range(6_000)] + ["bad"]
    file = tmp_path / "a.csv"
    file.write_text("parcelId,city,grams\n" + "".join(f"{id_},Ulm,{'x' if id_ == 'p7' else 1}\n" for id_ in ids))
    command = ["send", str(file), "--window", "3", "--json"]
    # The fourth batch is posted when one of the first three has ended.
    for posts in (4, 6):
        with started(app, tmp_path, *command) as process:
            app.wait_for_posts(posts)
            process.send_signal(signal.SIGKILL)
    with started(app, tmp_path, *command) as process:
        output, _ = process.communicate()
    report = json.loads(output)
    assert process.returncode == ExitCode.UNDELIVERED
    assert report["counts"] == {"created": 5_999, "invalid": 1, "rejected": 1}
    assert report["resumed"] > 0
    assert Counter(app.stored) == Counter(id_ for id_ in ids if id_ != "p7")
    rejected = (tmp_path / "a.rejected.csv").read_text(encoding="utf-8-sig").splitlines()
    assert [row.split(",")[-3] for row in rejected] == ["parcelId", "p7", "bad"]


def test_a_file_of_rejected_records_that_cannot_be_written_ends_the_run(
    app: RelayApp, tmp_path: Path, csv_file: Path
) -> None:
    (tmp_path / "a.rejected.csv" / "full").mkdir(parents=True)
    (tmp_path / "a.rejected.csv~" / "full").mkdir(parents=True)
    result = run(app, tmp_path, "send", str(csv_file))
    assert result.exit_code == ExitCode.USAGE
    assert "a.rejected.csv" in result.stderr
    assert "cannot be written" in result.stderr


def test_an_interrupted_run_says_how_to_go_on(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    app.hold = True
    with started(app, tmp_path, "send", str(csv_file)) as process:
        app.wait_for_posts(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Run the same command again" in said
    assert "Traceback" not in said


def test_send_asks_which_of_several_record_types(tmp_path: Path, csv_file: Path) -> None:
    with RelayApp(names=("Parcel", "Letter")) as app:
        result = run(app, tmp_path, "send", str(csv_file))
        assert result.exit_code == ExitCode.USAGE
        assert "Choose one with --resource" in result.stderr
        assert run(app, tmp_path, "send", str(csv_file), "--resource", "parcels").exit_code == ExitCode.OK


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["send", "no-such.csv"], "cannot be read"),
        (["send", "{file}", "--format", "xml"], "Use json, ndjson, csv"),
        (["send", "{file}", "--map", "city"], "COLUMN=MEMBER"),
        (["send", "{file}", "--map", "town=city"], "--map names the column 'town'"),
        (["send", "{file}", "--delimiter", ";;"], "one character"),
        (["send", "{file}", "--encoding", "utf-9"], "not known"),
        (["ls", "--since", "yesterday"], "12h"),
        (["ls", "--since", "99999999999999d"], "12h"),
        (["ls", "--since", "0001-01-01"], "12h"),
        (["get", "order", "1"], "It has: Parcel"),
        (["ls", "--url", "ftp://x"], "must begin with https://"),
    ],
)
def test_a_mistake_in_the_command_line_is_named(
    app: RelayApp, tmp_path: Path, csv_file: Path, args: list[str], words: str
) -> None:
    result = run(app, tmp_path, *(arg.format(file=csv_file) for arg in args))
    assert result.exit_code == ExitCode.USAGE
    assert words in result.stderr
    assert not result.stdout
    assert not app.posts


@pytest.mark.parametrize(
    "args", [["ls"], ["show", "x"], ["watch", "x"], ["cancel", "x"], ["get", "parcel", "x"], ["doctor"]]
)
def test_a_refused_key_has_its_own_exit_code_and_advice(app: RelayApp, tmp_path: Path, args: list[str]) -> None:
    result = run(app, tmp_path, *args, key="wrong-key")
    assert result.exit_code == ExitCode.KEY_REFUSED
    assert "the key of RELAY_KEY" in result.output
    assert "functionapp keys list" in result.output


def test_an_app_that_cannot_be_reached_has_its_own_exit_code(tmp_path: Path) -> None:
    result = run(None, tmp_path, "doctor")
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "Check the URL" in result.output


def test_ls_follows_every_page_and_asks_for_what_needs_attention(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    for name in ("b", "c"):
        (tmp_path / f"{name}.csv").write_text(f"parcelId,city\n{name},Ulm\n")
        run(app, tmp_path, "send", f"{tmp_path}/{name}.csv")
    run(app, tmp_path, "send", str(csv_file))
    result = run(app, tmp_path, "ls", "--failed", "--since", "2h", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["parcel-0", "parcel-1", "parcel-2"]
    asked = parse_qs(app.queries[0])
    assert asked["state"] == ["partly,rejected,expired,failed"]
    ago = datetime.now(UTC) - datetime.fromisoformat(asked["from"][0])
    assert timedelta(hours=2) <= ago < timedelta(hours=2, minutes=1)
    shown = run(app, tmp_path, "ls", "--limit", "1")
    assert "parcel-0" in shown.stdout
    assert "parcel-1" not in shown.stdout
    assert "There are more" in shown.stderr


def test_ls_cuts_nothing_off_where_nobody_looks(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    run(app, tmp_path, "send", str(csv_file))
    delivery = app.deliveries["parcel-0"]
    app.deliveries["parcel-" + "0" * 300] = replace(delivery, id="parcel-" + "0" * 300)

    assert "parcel-" + "0" * 300 in run(app, tmp_path, "ls").stdout


def test_show_lists_the_records_of_a_batch(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    run(app, tmp_path, "send", str(csv_file))
    shown = run(app, tmp_path, "show", "parcel-0", "--records")
    assert "partly" in shown.stdout
    assert "the partner knows no such city" in shown.stdout
    rejections = run(app, tmp_path, "show", "parcel-0").stdout.splitlines()[-2:]
    assert [line.split() for line in rejections] == [
        ["INDEX", "RECORDID", "STATE", "STATUS", "REASON"],
        ["1", "rejected", "no", "such", "city"],
    ]
    assert len(json.loads(run(app, tmp_path, "show", "parcel-0", "--records", "--json").stdout)["records"]) == 3


def test_watch_ends_with_the_delivery(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    run(app, tmp_path, "send", str(csv_file))
    delivery = app.deliveries["parcel-0"]
    delivery.state, delivery.done, app.step = "delivering", 0, 2
    result = run(app, tmp_path, "watch", "parcel-0", "--json")
    assert [json.loads(line)["pending"] for line in result.stdout.splitlines()] == [1, 0]
    assert result.exit_code == ExitCode.UNDELIVERED


def test_cancel_redeliver_and_get(app: RelayApp, tmp_path: Path, csv_file: Path) -> None:
    run(app, tmp_path, "send", str(csv_file))
    assert "parcel-0-again" in run(app, tmp_path, "redeliver", "parcel-0").stdout
    assert json.loads(run(app, tmp_path, "cancel", "parcel-0", "--json").stdout)["state"] == "cancelled"
    assert run(app, tmp_path, "get", "Parcel", "p1").stdout == '{"parcelId":"p1","grams":1.10}\n'
    missing = run(app, tmp_path, "get", "parcel", "x/y")
    assert missing.exit_code == ExitCode.NOT_FOUND
    assert "The partner has no such parcel" in missing.stderr
    assert "relay ls" not in missing.stderr


def test_doctor_names_the_part_of_a_partner_that_fails_and_what_to_do(app: RelayApp, tmp_path: Path) -> None:
    health = {"settings": "ok", "token": "unavailable", "detail": "The token endpoint refuses this app.", "flow": {}}
    app.health = (503, {"status": "unavailable", "partners": {"CRM_API": health, "SHOP_API": {"settings": "ok"}}})
    result = run(app, tmp_path, "doctor")
    assert result.exit_code == ExitCode.UNDELIVERED
    assert "CRM_API: settings ok, token unavailable: The token endpoint refuses this app." in result.stdout
    assert "Check the client's id" in result.stdout
    report = json.loads(run(app, tmp_path, "doctor", "--json").stdout)
    assert [check["name"] for check in report["checks"] if not check["ok"]] == ["CRM_API"]


def test_an_option_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    config = tmp_path / "relay" / "config.toml"
    config.parent.mkdir()
    config.write_text('url = "https://file.example/api/"\nkey = "from-file"\n')
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    found = find_connection(None, None, env)
    assert (found.url, found.key, found.url_source) == ("https://file.example", "from-file", str(config))
    assert "from-file" not in repr(found)
    env["RELAY_URL"] = "https://env.example"
    assert find_connection(None, None, env).url == "https://env.example"
    assert find_connection("https://option.example", None, env).url == "https://option.example"
    assert find_connection(None, None, {"XDG_CONFIG_HOME": str(tmp_path / "none")}).url == DEFAULT_URL


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://app.example", "secret-key"),
        ("https://app.example/?code=secret-key", None),
        ("https://user:secret-key@app.example", None),
        ("https://[secret-key", None),
        ("https://app.example", "secret-key\nx"),
        ("https://app.example", "secret-key-ä"),
    ],
)
def test_a_connection_that_would_show_a_key_is_refused_without_showing_it(
    tmp_path: Path, url: str, key: str | None
) -> None:
    with pytest.raises(CommandError) as error:
        find_connection(url, key, {"XDG_CONFIG_HOME": str(tmp_path)})
    assert error.value.exit_code == ExitCode.USAGE
    assert "secret-key" not in error.value.message + error.value.advice


@pytest.mark.parametrize("content", ['key = "secret-key', "key = 5", 'token = "secret-key"'])
def test_a_broken_configuration_file_is_named_without_its_content(tmp_path: Path, content: str) -> None:
    config = tmp_path / "relay" / "config.toml"
    config.parent.mkdir()
    config.write_text(content)
    with pytest.raises(CommandError, match=r"config\.toml") as error:
        find_connection(None, None, {"XDG_CONFIG_HOME": str(tmp_path)})
    assert "secret-key" not in error.value.message


def test_progress_says_how_far_how_fast_and_how_long() -> None:
    result = SendingResult(read=5_000, counts=Counter(created=3_990, rejected=10), running={9: Counter(created=500)})
    text, total = progress_text(result, 0.25, 500.0)
    assert text == "4,500 of about 20,000 · 500/s · 10 not delivered · 31 s left"
    assert total == 20_000
    assert progress_text(result, None, 0.0)[0] == "4,500 · 0/s · 10 not delivered"


def test_words_of_the_partner_do_not_reach_the_terminal_as_commands() -> None:
    assert printable("no\x1b[2J\x07") == "no\ufffd[2J\ufffd"
