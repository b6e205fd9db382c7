"""HTTP functions under the host, in processes of their own."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.host_apps.host_process import APPS, HostProcess, running_host

if TYPE_CHECKING:
    from collections.abc import Generator


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Generator[HostProcess]:
    with running_host(APPS / "web", tmp_path_factory.mktemp("host"), {"COLOUR": "blue"}) as running:
        yield running


def raw_get(host: HostProcess, target: str) -> tuple[int, Any]:
    """Ask for a target that no client library would send as it is."""
    address = urlsplit(host.base)
    connection = http.client.HTTPConnection(str(address.hostname), address.port)
    try:
        connection.putrequest("GET", target, skip_host=False)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else None
    finally:
        connection.close()


def test_a_caller_that_hangs_up_in_the_midst_of_its_body_is_no_error(host: HostProcess) -> None:
    address = urlsplit(host.base)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"POST /v1/echo/x HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")
    assert host.http.post("/v1/echo/x", content=b"whole").json()["body"] == "whole"
    assert "Traceback" not in host.log.partition("HTTP function broken")[0]


def test_refuses_a_body_above_the_limit(host: HostProcess) -> None:
    address = urlsplit(host.base)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"POST /v1/echo/x HTTP/1.1\r\nhost: x\r\ncontent-length: 104857601\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_path_with_a_nul_is_a_bad_request(host: HostProcess) -> None:
    assert raw_get(host, "/v1/things/%00") == (400, None)


def test_a_function_without_a_route_has_its_name(host: HostProcess) -> None:
    answer = host.http.get("/v1/no_route")
    assert answer.text == "by its name"


def test_adds_the_custom_headers_of_host_json_below_those_of_the_function(host: HostProcess) -> None:
    headers = host.http.get("/v1/no_route").headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "max-age=5"


def test_logs_what_a_function_raised(host: HostProcess) -> None:
    host.http.get("/v1/broken")
    assert "HTTP function broken failed: ValueError: something is missing" in host.log


def test_shows_the_log_lines_of_the_app_with_level_and_name_and_fields(host: HostProcess) -> None:
    host.http.get("/v1/echo")
    assert 'INFO    webapp.echo: An echo method=GET why="asked for"\n' in host.log


def test_logs_nothing_of_a_request(host: HostProcess) -> None:
    host.http.post("/v1/echo/x?key=q-s3cr3t", headers={"authorization": "h-s3cr3t"}, content=b"b-s3cr3t")
    assert "s3cr3t" not in host.log


def test_hands_on_the_trace_of_the_caller(host: HostProcess) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": trace, "tracestate": "a=b"}
    assert host.http.get("/v1/trace", headers=headers).text == f"{trace} a=b"


def test_begins_a_trace_where_the_caller_has_none(host: HostProcess) -> None:
    first, second = (host.http.get("/v1/trace", headers={"traceparent": "junk"}).text for _ in range(2))
    assert first != second
    assert len(first.strip()) == 55


def test_runs_the_app_in_its_folder_with_the_settings(host: HostProcess) -> None:
    assert host.http.get("/v1/environment/COLOUR").json() == ["blue", str(APPS / "web")]
    assert host.http.get("/v1/environment/WEBSITE_HOSTNAME").json()[0] == urlsplit(host.base).netloc


def test_lists_the_functions_with_their_bindings(host: HostProcess) -> None:
    listed = {each["name"]: each for each in host.http.get("/admin/functions").json()}
    assert listed["special"]["config"]["bindings"][0]["authLevel"] == "ANONYMOUS"
    assert listed["echo"]["config"]["bindings"][0]["authLevel"] == "FUNCTION"
    assert listed["thing"]["invoke_url_template"] == f"{host.base}/v1/things/{{id}}"
    assert host.http.get("/admin/functions/THING").json() == listed["thing"]
    assert host.http.get("/admin/functions/nobody").status_code == 404
    assert host.http.get("/admin/nothing").status_code == 404


def test_prints_the_functions_after_the_address(host: HostProcess) -> None:
    lines = host.output.splitlines()
    assert lines[0] == f"host: {host.base}"
    assert "  GET,PUT  /v1/things/{id}  thing" in lines
    assert "  ANY  /v1/echo/{*rest}  echo" in lines
