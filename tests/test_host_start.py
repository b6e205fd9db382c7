"""Apps that cannot run: one clear line, and a non-zero exit."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from tests.host_apps.host_process import APPS, running_host, started_host, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

HOST_JSON = '{"version": "2.0"}'
APP = """
import azure.functions as func
import azure.durable_functions as df
app = df.DFApp()

@app.route(route="hello")
async def hello(req: func.HttpRequest) -> str:
    return "hello"
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "host.json").write_text(HOST_JSON)
    (folder / "function_app.py").write_text(APP)
    return folder


def failure(app: Path, folder: Path, *options: str) -> str:
    """Give what the host says on stderr when it cannot run; it must not print that it is ready."""
    with started_host(app, folder, {}, *options) as host:
        assert host.exit_code() == 1
        assert host.output == ""
        return host.log


def test_the_app_of_these_tests_runs(app: Path, tmp_path: Path) -> None:
    with running_host(app, tmp_path) as host:
        assert host.http.get("/api/hello").text == "hello"


def test_names_the_exception_and_the_line_of_an_import_error(app: Path, tmp_path: Path) -> None:
    (app / "function_app.py").write_text("import json\n\nimport no_such_module_at_all\n")
    log = failure(app, tmp_path)
    assert log == (
        "sandbox host: the app cannot be imported: ModuleNotFoundError: No module named 'no_such_module_at_all' "
        f"({app}/function_app.py:3)\n"
    )


def test_shows_the_traceback_of_an_import_error_on_request(app: Path, tmp_path: Path) -> None:
    (app / "function_app.py").write_text("1 / 0\n")
    log = failure(app, tmp_path, "--verbose")
    assert "sandbox host: the app cannot be imported: ZeroDivisionError: division by zero" in log
    assert "Traceback (most recent call last)" in log


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit('no settings')\n", "SystemExit: no settings"),
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
        ("x = 1\n", "Could not find top level function app instances in function_app.py"),
        ("import azure.functions as f\napp = f.FunctionApp()\nother = f.FunctionApp()\n", "More than one"),
        ("import azure.functions as f\napp = f.FunctionApp()\n", "function_app.py declares no functions"),
        (APP + APP.partition("app = df.DFApp()")[2], "hello"),
        (APP + "\n@app.route(route='x')\nasync def wrong(request):\n    return ''\n", "wrong"),
    ],
)
def test_says_in_one_line_why_an_app_cannot_be_indexed(app: Path, tmp_path: Path, code: str, text: str) -> None:
    (app / "function_app.py").write_text(code)
    log = failure(app, tmp_path)
    *warnings, line = log.splitlines()
    assert line.startswith("sandbox host: ")
    assert text in line
    assert all(" WARNING " in each for each in warnings)


def test_says_that_there_is_no_app(app: Path, tmp_path: Path) -> None:
    (app / "function_app.py").unlink()
    assert failure(app, tmp_path) == f"sandbox host: there is no function_app.py in {app}\n"


BINDINGS = {
    "queueTrigger": (
        "@app.queue_trigger(arg_name='x', queue_name='q', connection='C')\ndef odd(x: func.QueueMessage): ..."
    ),
    "blobTrigger": "@app.blob_trigger(arg_name='x', path='p', connection='C')\ndef odd(x: func.InputStream): ...",
    "entityTrigger": "@app.entity_trigger(context_name='context')\ndef odd(context): ...",
    "queue": (
        "@app.route(route='q')\n@app.queue_output(arg_name='x', queue_name='q', connection='C')\n"
        "def odd(req: func.HttpRequest, x: func.Out[str]) -> str: ..."
    ),
}


@pytest.mark.parametrize("binding", BINDINGS)
def test_refuses_a_binding_that_it_does_not_support_and_names_the_function(
    app: Path, tmp_path: Path, binding: str
) -> None:
    (app / "function_app.py").write_text(f"{APP}\n{BINDINGS[binding]}\n")
    log = failure(app, tmp_path)
    name = "context" if binding == "entityTrigger" else "x"
    assert log == (
        f"sandbox host: function 'odd' uses the binding {binding} ({name}), which the sandbox's host does not support\n"
    )


STREAMING = """
import azurefunctions.extensions.base as base

class Synchronizer(base.RequestSynchronizer):
    def sync_route_params(self, request, path_params): ...

class Requests(metaclass=base.RequestTrackerMeta):
    request_type, synchronizer = func.HttpRequest, Synchronizer()

class Responses(metaclass=base.ResponseTrackerMeta):
    label, response_type = base.ResponseLabels.STANDARD, str

class WebApp(base.WebApp):
    def route(self, function): ...
    def get_app(self): ...

class WebServer(base.WebServer):
    async def serve(self): ...
"""


def test_refuses_http_streaming(app: Path, tmp_path: Path) -> None:
    (app / "function_app.py").write_text(APP.replace("app = df.DFApp()", f"app = df.DFApp()\n{STREAMING}"))
    assert failure(app, tmp_path).startswith("sandbox host: the app uses HTTP streaming")


def test_refuses_a_schedule_that_makes_no_sense(app: Path, tmp_path: Path) -> None:
    code = "\n@app.timer_trigger(arg_name='t', schedule='now and then')\ndef odd(t: func.TimerRequest) -> None: ...\n"
    (app / "function_app.py").write_text(APP + code)
    assert failure(app, tmp_path).startswith("sandbox host: function 'odd': 'now and then' is neither an NCRONTAB")


def test_refuses_a_route_that_it_does_not_understand(app: Path, tmp_path: Path) -> None:
    (app / "function_app.py").write_text(APP.replace('"hello"', '"hello/{id:regex(x)}"', 1))
    assert "function 'hello': the route 'hello/{id:regex(x)}' has the constraint 'regex(x)'" in failure(app, tmp_path)


def test_says_which_host_json_is_broken(app: Path, tmp_path: Path) -> None:
    (app / "host.json").write_text('{"version": "2.0",}')
    log = failure(app, tmp_path)
    assert log.startswith(f"sandbox host: {app}/host.json is not JSON: ")
    assert "line 1 column" in log


def test_says_that_there_is_no_host_json(app: Path, tmp_path: Path) -> None:
    (app / "host.json").unlink()
    assert failure(app, tmp_path).startswith(f"sandbox host: there is no host.json in {app}")


def test_says_that_a_port_is_in_use(app: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        log = failure(app, tmp_path, "--port", str(port))
    assert log == f"sandbox host: cannot listen on port {port} of 127.0.0.1: Address already in use\n"


def test_says_that_a_store_is_in_use(app: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with running_host(app, tmp_path, {}, "--store", str(folder)):
        problem = failure(app, app, "--store", str(folder))
    assert problem == f"sandbox host: the store in {folder} cannot be used: database is locked\n"


def test_takes_settings_from_the_file_and_from_the_environment_above_it(app: Path, tmp_path: Path) -> None:
    values = {"IN_FILE": "file", "IN_BOTH": "file"}
    (app / "local.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    code = (APPS / "web" / "function_app.py").read_text()
    (app / "function_app.py").write_text(code)
    with running_host(app, tmp_path, {"IN_BOTH": "environment"}) as host:
        found = [host.http.get(f"/api/environment/{name}").json()[0] for name in ("IN_FILE", "IN_BOTH", "IN_NONE")]
    assert found == ["file", "environment", None]


def test_an_app_setting_overrides_host_json(app: Path, tmp_path: Path) -> None:
    settings = {"AzureFunctionsJobHost__extensions__http__routePrefix": "other"}
    with running_host(app, tmp_path, settings) as host:
        assert host.http.get("/other/hello").text == "hello"
        assert host.http.get("/api/hello").status_code == 404


def test_gives_up_where_the_worker_process_ends_again_and_again(app: Path, tmp_path: Path) -> None:
    (app / "function_app.py").write_text("import os\nos._exit(7)\n")
    log = failure(app, tmp_path)
    last = log.splitlines()[-1]
    assert last.startswith("sandbox host: the worker process ended 5 times before it had imported the app: ")
    assert last.endswith("exited with code 7 (0x7)")
    assert "Traceback" not in log


def test_a_signal_during_the_start_ends_the_host(app: Path, tmp_path: Path) -> None:
    (app / "function_app.py").write_text("import time\nopen('importing', 'w').close()\ntime.sleep(60)\n")
    with started_host(app, tmp_path) as host:
        until((app / "importing").exists, "the import")
        host.process.terminate()
        assert host.exit_code() == 0
        assert host.log == ""


def test_imports_the_modules_of_the_app_before_all_others(app: Path, tmp_path: Path) -> None:
    (app / "sandbox_test_settings.py").write_text("GREETING = 'from the app'\n")
    code = APP.replace('return "hello"', "import sandbox_test_settings\n    return sandbox_test_settings.GREETING")
    (app / "function_app.py").write_text(code)
    with running_host(app, tmp_path) as host:
        assert host.http.get("/api/hello").text == "from the app"
