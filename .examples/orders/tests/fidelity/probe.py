# mypy: ignore-errors
"""Asks a host that runs the app beside this file a fixed list of questions and writes the answers, with all that varies replaced.

    python probe.py URL OUT.json [--parts PARTS] [--kill-worker COMMAND] [--compare recorded.json] [--master-key K --system-key K]

`recorded.json` holds the answers of the Functions host 4.1037 with the Durable Task extension 3.19.0 on Azure Storage (Azurite 3.37),
Python worker 4.34 on Python 3.13. COMMAND kills the host's worker process. Standard library only.
"""

import argparse
import base64
import http.client
import json
import re
import subprocess
import threading
import time
from urllib.parse import quote, urlsplit

HOOK = "/runtime/webhooks/durabletask"
BORING = {"date", "server", "content-length", "transfer-encoding", "connection", "keep-alive"}


class Probe:
    def __init__(self, url, keys):
        parts = urlsplit(url)
        self.host, self.port, self.keys, self.log, self.ids = parts.hostname, parts.port, keys, {}, {}
        self.code = f"code={keys['system']}" if keys["system"] else "code=none"

    def raw(self, method, path, body=None, headers=None, timeout=60):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            headers = dict(headers or {})
            connection.putrequest(method, path, skip_accept_encoding=True, skip_host="Host" in headers)
            if body is not None and not {"Content-Length", "Transfer-Encoding"} & set(headers):
                headers["Content-Length"] = str(len(body))
            for name, value in headers.items():
                for each in value if isinstance(value, list) else [value]:
                    connection.putheader(name, each)
            connection.endheaders()
            if body is not None:
                connection.send(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except (OSError, http.client.HTTPException) as error:
            return None, [], type(error).__name__.encode()
        finally:
            connection.close()

    def plain(self, text):
        """Replaces what differs from run to run."""
        for real, name in self.ids.items():
            text = text.replace(real, name)
        for name in (f"{self.host}:{self.port}", f"localhost:{self.port}"):
            text = text.replace(name, "<origin>")
        for kind, key in self.keys.items():
            text = text.replace(key, f"<{kind} key>") if key else text
        for pattern, replacement in (
            (r"taskHub=[A-Za-z0-9]+", "taskHub=<hub>"), (r"connection=(AzureWebJobsStorage|Storage)", "connection=<connection>"), (r"code=[^&\s\"'\\\\]+", "code=<key>"),
            (r"(?!2026-01-01)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|\+00:00)?", r"<time.fraction>\1"), (r"(?!2026-01-01)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|\+00:00)", r"<time>\1"),
            (r"00-[0-9a-f]{32}-[0-9a-f]{16}-\d\d", "<traceparent>"), (r"\b[0-9a-f]{32}\b", "<hex32>"), (r"\b(?=[0-9a-f]*[a-f])[0-9a-f]{16}\b", "<hex16>"),
            (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uuid>"), (r"(?:/[\w.+-]+)+/python[0-9.]* exited", "<python> exited"), (r"/(?:tmp|work|home|root)/[\w./-]+", "<path>"),
        ):
            text = re.sub(pattern, replacement, text)
        return text

    def short(self, value, key=""):
        """Cuts stack traces off: they belong to a host, not to its interface."""
        if isinstance(value, dict):
            return {k: self.short(v, k) for k, v in value.items() if k not in ("processUptime", "processId", "versionDetails", "functionDirectory", "script_href", "test_data_href")}
        if isinstance(value, list):
            return [self.short(each) for each in value]
        if isinstance(value, str):
            if key in ("Details", "StackTrace"):
                return "<details>"
            value = re.split(r"\{\"\$type|,? ?StackTrace:|\nStack:|Traceback \(most", value)[0] if re.search(r"\{\"\$type|StackTrace:|\nStack:|Traceback \(most", value) else value
            return value if len(value) <= 1500 else f"{value[:200]}… ({len(value)} characters)"
        return value

    def note(self, name, **members):
        if name.endswith("/admin/host/status") and isinstance(members.get("body"), dict):
            members["body"].pop("id", None)
        while name in self.log:
            name += " again"
        self.log[name] = members

    def ask(self, name, method, path, body=None, headers=None, show=True):
        status, got, data = self.raw(method, path, body, headers)
        text = self.plain(data[:300_000].decode("utf-8", "replace"))
        try:
            shown = json.loads(text)
        except ValueError:
            shown = text if len(text) < 3000 else f"{text[:200]}… ({len(data)} bytes)"
        shown = self.short(shown)
        if show:
            kept = {}
            for key, value in got:
                if key.lower() not in BORING:
                    kept[key.lower()] = f"{kept[key.lower()]}, {self.plain(value)}" if key.lower() in kept else self.plain(value)
            self.note(name, request=self.plain(f"{method} {path}")[:200], status=status, headers=dict(sorted(kept.items())), body=shown)
        return status, dict((k.lower(), v) for k, v in got), data

    def start(self, name, orchestrator, value=None, instance=None, show=False):
        status, _, data = self.ask(name, "POST", f"/api/start/{orchestrator}" + (f"/{instance}" if instance else ""), json.dumps(value).encode(), {"Content-Type": "application/json"}, show=False)
        try:
            found = json.loads(data)["id"]
            self.ids[found] = f"<id of {name}>"
        except (ValueError, KeyError):
            found = None
        if show:
            self.note(name, status=status, body=self.short(json.loads(self.plain(data.decode()))))
        return found

    def state(self, instance):
        try:
            return json.loads(self.raw("GET", f"{HOOK}/instances/{instance}?{self.code}")[2])["runtimeStatus"]
        except (ValueError, KeyError):
            return None

    def wait(self, instance, states=("Completed", "Failed", "Terminated"), seconds=30):
        end = time.time() + seconds
        while time.time() < end:
            if self.state(instance) in states:
                return True
            time.sleep(0.1)
        return False

    def look(self, name, instance, history=True):
        self.ask(name, "GET", f"{HOOK}/instances/{instance}?{self.code}" + ("&showHistory=true&showHistoryOutput=true" if history else ""))

    def run(self, name, orchestrator, value=None, history=True, seconds=30):
        instance = self.start(name, orchestrator, value)
        if not self.wait(instance, seconds=seconds):
            self.note(f"{name}: not done", state=self.state(instance))
        self.look(name, instance, history)
        return instance


def http_part(p):
    for path in ("/", "/api", "/api/", "/api/match/5", "/api/match/literal", "/api/match/LITERAL", "/api/match/post", "/api/match/other", "/api/zulu", "/API/Match/5", "/api/match/5/", "/api//match/5", "/api/match/%35", "/api/match/a%2Fb", "/api/match/a%252Fb", "/api/match/..", "/api/match/%2e%2e", "/api/match/%ff", "/api/match/%zz", "/api/match/a+b", "/api/match/a%20b", "/api/match/%C3%A9", "/nothing", "/admin", "/admin/nothing", "/runtime", HOOK, HOOK + "/nothing", "/favicon.ico"):
        for method in ("GET", "HEAD", "POST", "OPTIONS", "DELETE"):
            p.ask(f"route {method} {quote(path, safe='/%+')}", method, path, b"" if method == "POST" else None)
    for name, method, path, body, headers in (
        ("GET", "GET", "/api/echo/a?x=1&x=2&y=%C3%A9&z=a+b&empty=&flag", None, {"X-Two": ["1", "2"], "Accept": "*/*", "Cookie": "a=1; b=2", "X-Latin": "caf\u00e9"}),
        ("GET plain", "GET", "/api/echo/a?x=1&x=2&y=%C3%A9&z=a+b&empty=&flag", None, {"X-Two": ["1", "2"], "Accept": "*/*", "Cookie": "a=1; b=2"}),
        ("two parts", "GET", "/api/echo/a/b%20c", None, {}), ("POST JSON", "POST", "/api/echo/a", b'{"a": "\xc3\xa9"}', {"Content-Type": "application/json"}), ("POST without a type", "POST", "/api/echo/a", b"\x00\xff", {}),
        ("POST form", "POST", "/api/echo/a", b"a=1&b=2&a=3", {"Content-Type": "application/x-www-form-urlencoded"}), ("POST bytes", "POST", "/api/echo/a", bytes(range(256)), {"Content-Type": "application/octet-stream"}), ("POST text", "POST", "/api/echo/a", b"caf\xe9", {"Content-Type": "text/plain; charset=iso-8859-1"}),
        ("POST multipart", "POST", "/api/echo/a", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n', {"Content-Type": "multipart/form-data; boundary=x"}), ("POST gzip", "POST", "/api/echo/a", bytes.fromhex("1f8b0800000000000003ab05004395e6a502000000"), {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
        ("POST chunked", "POST", "/api/echo/a", b'7\r\n{"a":1}\r\n0\r\n\r\n', {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}), ("POST chunked and length", "POST", "/api/echo/a", b'7\r\n{"a":1}\r\n0\r\n\r\n', {"Content-Type": "application/json", "Transfer-Encoding": "chunked", "Content-Length": "7"}),
        ("POST h2c", "POST", "/api/echo/a", b'{"a":1}', {"Content-Type": "application/json", "Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}), ("POST 100-continue", "POST", "/api/echo/a", b'{"a":1}', {"Content-Type": "application/json", "Expect": "100-continue"}),
        ("empty POST", "POST", "/api/echo/a", b"", {}), ("PATCH", "PATCH", "/api/echo/a", b"1", {}), ("PUT", "PUT", "/api/echo/a", b"1", {}), ("DELETE with a body", "DELETE", "/api/echo/a", b"1", {}), ("GET with a body", "GET", "/api/echo/a", b"1", {}), ("HEAD", "HEAD", "/api/echo/a", None, {}), ("OPTIONS", "OPTIONS", "/api/echo/a", None, {"Origin": "https://else.example", "Access-Control-Request-Method": "POST"}),
        ("foreign Host", "GET", "/api/echo/a", None, {"Host": "else.example"}), ("two Hosts", "GET", "/api/echo/a", None, {"Host": ["a.example", "b.example"]}), ("forwarded", "GET", "/api/echo/a", None, {"X-Forwarded-Host": "else.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "1.2.3.4"}), ("Origin", "GET", "/api/echo/a", None, {"Origin": "https://else.example"}),
        ("negative length", "POST", "/api/echo/a", b"{}", {"Content-Length": "-1"}), ("body of 8 MB", "POST", "/api/echo/a", b"x" * 8_000_000, {}), ("header of 30 KB", "GET", "/api/respond/text", None, {"X-Long": "x" * 30000}), ("header of 40 KB", "GET", "/api/respond/text", None, {"X-Long": "x" * 40000}), ("99 headers", "GET", "/api/respond/text", None, {f"X-{i}": "1" for i in range(96)}), ("110 headers", "GET", "/api/respond/text", None, {f"X-{i}": "1" for i in range(110)}), ("URL of 7 KB", "GET", "/api/respond/text?" + "x" * 7000, None, {}), ("URL of 9 KB", "GET", "/api/respond/text?" + "x" * 9000, None, {}),
        ("unknown method", "BREW", "/api/echo/a", None, {}), ("TRACE", "TRACE", "/api/echo/a", None, {}), ("traceparent", "GET", "/api/echo/a", None, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}),
    ):
        p.ask(f"echo {name}", method, path, body, headers)
    for what in ("text", "bytes", "empty", "204-body", "304", "string", "none", "number", "headers", "cookie", "type", "type-in-headers", "299", "599", "big", "raise", "slow"):
        p.ask(f"respond {what}", "GET", f"/api/respond/{what}")
    p.ask("respond HEAD text", "HEAD", "/api/respond/text")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(p.raw("GET", "/api/respond/slow")[0])) for _ in range(100)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    p.note("100 slow requests at once, 20 in work and 40 in all allowed", answers={str(each): answers.count(each) for each in sorted(set(answers), key=str)})


def durable_part(p):
    p.start("start", "Context", None, show=True)
    p.start("start under an id", "Events", 1, "my-id", show=True)
    p.start("start under a running id", "Events", 1, "my-id", show=True)
    p.start("start an unknown function", "Nothing", 1, show=True)
    p.start("start with an odd id", "Context", 1, quote("a b/é", safe=""), show=True)
    p.start("start with a long id", "Context", 1, "y" * 101, show=True)
    p.run("values", "Values", {"a": "é\u2028"})
    p.run("context", "Context")
    p.run("fails: caught", "Fails", None)
    for how in ("orchestrator", "activity", "unknown activity", "unknown sub", "sub", "result"):
        p.run(f"fails: {how}", "Fails", how)
    p.run("retry", "Retry")
    p.run("timers", "Timers")
    p.run("eternal", "Eternal")
    p.run("parent", "Parent")
    for name, text, times in (("10 KB", "x", 10_000), ("just under 16 KB", "x", 16_382), ("just over 16 KB", "x", 16_400), ("é", "\u00e9", 8_000), ("é over", "\u00e9", 9_000), ("line separators", "\u2028", 5_000), ("NEL", "\x85", 5_000), ("quotes", '"', 8_000), ("less than", "<", 9_000), ("emoji", "\U0001f600", 4_500)):
        instance = p.start(f"status {name}", "Status", {"text": text, "times": times})
        p.wait(instance)
        _, _, data = p.raw("GET", f"{HOOK}/instances/{instance}?{p.code}&showInput=false")
        found = json.loads(data)
        p.note(f"status {name}", state=found["runtimeStatus"], customStatus=None if found["customStatus"] is None else len(found["customStatus"]), output=p.short(found["output"]))
    for size in (1000, 30_000, 100_000, 400_000):
        instance = p.start(f"large {size}", "Large", size)
        p.wait(instance)
        found = json.loads(p.raw("GET", f"{HOOK}/instances/{instance}?{p.code}")[2])
        p.note(f"large {size}", state=found["runtimeStatus"], output=found["output"][:3] if isinstance(found["output"], list) else p.short(p.plain(str(found["output"]))))
    # operations on instances in each state
    running = p.start("running", "Events", 3)
    p.wait(running, ("Running",))
    time.sleep(0.5)
    p.look("running", running)
    p.ask("wait for a running one", "POST", f"/api/hold/{running}", b"")

    def both(label, instance, operation, body=b"", kind=None, query=""):
        p.ask(f"{label}, webhook", "POST", f"{HOOK}/instances/{instance}/{operation}?{p.code}{query}", body, {"Content-Type": kind} if kind else {})

    both("event", running, "raiseEvent/signal", b'{"a": "\xc3\xa9"}', "application/json")
    both("event of another name", running, "raiseEvent/other", b"1", "application/json")
    both("event without JSON", running, "raiseEvent/signal", b"no", "text/plain")
    both("event of broken JSON", running, "raiseEvent/signal", b"{", "application/json")
    both("event without a body", running, "raiseEvent/signal", b"")
    time.sleep(1)
    p.look("after events", running)
    both("suspend", running, "suspend", query="&reason=why")
    p.wait(running, ("Suspended",))
    p.look("suspended", running)
    both("suspend a suspended one", running, "suspend")
    p.ask("client suspends a suspended one", "POST", f"/api/client/suspend/{running}", b"")
    both("event to a suspended one", running, "raiseEvent/signal", b"2", "application/json")
    both("resume", running, "resume", query="&reason=go")
    p.wait(running, ("Running", "Completed"))
    time.sleep(1)
    p.look("resumed", running, history=False)
    both("rewind a running one", running, "rewind")
    both("restart a running one under its id", running, "restart", query="&restartWithNewInstanceId=false")
    p.ask("purge a running one", "DELETE", f"{HOOK}/instances/{running}?{p.code}")
    p.ask("client purges a running one", "POST", f"/api/client/purge/{running}", b"")
    both("terminate", running, "terminate", query="&reason=enough")
    p.wait(running)
    p.look("terminated", running)
    done = p.run("done", "Context")
    p.ask("wait for a done one", "POST", f"/api/hold/{done}", b"")
    failed = p.run("failed", "Fails", "activity")
    p.ask("wait for a failed one", "POST", f"/api/hold/{failed}", b"")
    p.ask("failed, 500 asked for", "GET", f"{HOOK}/instances/{failed}?{p.code}&returnInternalServerErrorOnFailure=true")
    for operation in ("terminate", "suspend", "resume", "rewind", "restart", "raiseEvent/signal"):
        both(f"{operation} a done one", done, operation, b"1" if "Event" in operation else b"", "application/json" if "Event" in operation else None)
        both(f"{operation} an unknown one", "nothing-there", operation, b"1" if "Event" in operation else b"", "application/json" if "Event" in operation else None)
    for operation in ("status", "terminate", "suspend", "resume", "rewind", "event", "purge"):
        p.ask(f"client: {operation} a done one", "POST", f"/api/client/{operation}/{p.run(f'done for {operation}', 'Context', history=False)}", b"1")
        p.ask(f"client: {operation} an unknown one", "POST", f"/api/client/{operation}/nothing-there", b"1")
    both("rewind a failed one", failed, "rewind")
    time.sleep(2)
    p.wait(failed)
    p.look("rewound", failed)
    p.look("an unknown one", "nothing-there")
    p.ask("purge a done one", "DELETE", f"{HOOK}/instances/{done}?{p.code}")
    p.look("purged", done)
    p.ask("purge an unknown one", "DELETE", f"{HOOK}/instances/nothing-there?{p.code}")
    p.ask("client: by state", "POST", "/api/client/by/Failed", b"")
    for name, query in (("all", ""), ("top 1", "&top=1"), ("failed", "&runtimeStatus=Failed"), ("two states", "&runtimeStatus=Failed,Terminated"), ("unknown state", "&runtimeStatus=Odd"), ("unreadable time", "&createdTimeFrom=yesterday"), ("prefix", "&instanceIdPrefix=my-"), ("future", "&createdTimeFrom=2099-01-01T00:00:00Z"), ("unreadable top", "&top=x"), ("top 0", "&top=0")):
        status, got, data = p.raw("GET", f"{HOOK}/instances?{p.code}&showInput=false{query}")
        try:
            rows = json.loads(data)
            shown = {"any": bool(rows), "at most one": len(rows) <= 1, "members": sorted({member for row in rows for member in row}), "states": sorted({row["runtimeStatus"] for row in rows})}
        except (ValueError, TypeError):
            shown = p.plain(data.decode())[:400]
        p.note(f"query: {name}", status=status, continuation=any(k.lower() == "x-ms-continuation-token" and v for k, v in got), body=shown)
    for name, query in (("nothing in range", "&createdTimeFrom=2001-01-01T00:00:00Z&createdTimeTo=2001-01-02T00:00:00Z"), ("no range", ""), ("unreadable range", "&createdTimeFrom=x")):
        p.ask(f"purge: {name}", "DELETE", f"{HOOK}/instances?{p.code}{query}")
    for name, body in (("nothing", b""), ("null", b"null"), ("a text", b'"x"'), ("an object", b'{"a": 1.0, "b": 1e2, "n": 12345678901234567890}'), ("broken JSON", b"{")):
        status, _, data = p.raw("POST", f"{HOOK}/orchestrators/Values/direct-{name.replace(' ', '-')}?{p.code}", body, {"Content-Type": "application/json"})
        p.note(f"webhook starts with {name}", status=status, body="<links>" if status == 202 else p.short(json.loads(p.plain(data.decode()))))
        if status == 202:
            p.wait(f"direct-{name.replace(' ', '-')}")
            p.look(f"webhook started with {name}", f"direct-{name.replace(' ', '-')}", history=False)
    p.ask("webhook starts an unknown function", "POST", f"{HOOK}/orchestrators/Nothing/unknown-1?{p.code}", b"{}", {"Content-Type": "application/json"})
    p.wait("unknown-1", seconds=5)
    p.look("webhook started an unknown function", "unknown-1")
    p.ask("webhook starts an activity", "POST", f"{HOOK}/orchestrators/Same/unknown-2?{p.code}", b"{}", {"Content-Type": "application/json"})
    master = {"x-functions-key": p.keys["master"]} if p.keys["master"] else {}
    for method, path in (("GET", "/admin/host/status"), ("GET", "/admin/host/ping"), ("GET", "/admin/functions/Echo"), ("GET", "/admin/functions/Nothing"), ("POST", "/admin/functions/Nothing"), ("POST", "/admin/functions/Echo")):
        p.ask(f"admin {method} {path}", method, path, b"{}" if method == "POST" else None, {**master, "Content-Type": "application/json"})


def kill_part(p, kill):
    """The worker process is killed (the Functions host gives up after the third time within minutes: another part)."""
    inside = p.start("killed inside the orchestrator", "Blocked", 5)
    beside = p.start("killed beside a waiting one", "Events", 1)
    time.sleep(2)
    subprocess.run(kill, shell=True, check=False)
    p.wait(inside)
    p.look("killed inside the orchestrator", inside)
    p.ask("rewind what was killed", "POST", f"{HOOK}/instances/{inside}/rewind?{p.code}", b"")
    time.sleep(3)
    p.wait(inside)
    p.look("killed, then rewound", inside)
    p.note("killed beside a waiting one", state=p.state(beside))
    activity = p.start("killed inside the activity", "Sleepy", 5)
    time.sleep(2)
    subprocess.run(kill, shell=True, check=False)
    p.wait(activity)
    p.look("killed inside the activity", activity)


def kill_request_part(p, kill):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(p.raw("GET", "/api/respond/slow")))
    thread.start()
    time.sleep(1)
    subprocess.run(kill, shell=True, check=False)
    thread.join()
    p.note("killed inside a request", status=answers[0][0], body=p.plain(answers[0][2].decode("utf-8", "replace"))[:300])
    began = time.time()
    p.ask("request right after a kill", "GET", "/api/respond/text")
    p.note("after a kill", answered_within_10_s=time.time() - began < 10)


def slow_part(p, kill):
    """A function takes longer than functionTimeout (15 s)."""
    slow = p.start("activity beyond functionTimeout", "Sleepy", 22)
    beside = p.start("activity beside it", "Sleepy", 18)
    waiting = p.start("orchestrator beside it", "Events", 1)
    p.wait(slow, seconds=60)
    p.look("activity beyond functionTimeout", slow)
    p.wait(beside, seconds=60)
    p.look("activity beside it", beside)
    p.note("orchestrator beside it", state=p.state(waiting))
    p.ask("request beyond functionTimeout", "GET", "/api/respond/too-slow")
    time.sleep(5)
    p.ask("request after that", "GET", "/api/respond/text")


def exit_part(p, kill):
    p.ask("respond exit", "GET", "/api/respond/exit")
    time.sleep(3)
    p.ask("request after exit", "GET", "/api/respond/text")


def ask_part(p, part, kill):
    """Asks the questions of one part."""
    if part in ("http", "durable"):
        {"http": http_part, "durable": durable_part}[part](p)
    else:
        {"kill": kill_part, "kill-request": kill_request_part, "slow": slow_part, "exit": exit_part}[part](p, kill)


def differences(path, expected, found):
    """Each member that differs, as (path, expected, found)."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(set(expected) | set(found)):
            yield from differences(f"{path}/{key}", expected.get(key, "<absent>"), found.get(key, "<absent>"))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found)):
            yield from differences(f"{path}[{index}]", *pair)
    elif expected != found:
        yield path, expected, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("out")
    parser.add_argument("--parts", default="http,durable", help="of http, durable, kill, kill-request, slow, exit; each of the last four needs a fresh host")
    parser.add_argument("--kill-worker", default="", help="a shell command that kills the worker process")
    parser.add_argument("--compare", help="a file with recorded answers: print what differs")
    parser.add_argument("--master-key", default="")
    parser.add_argument("--system-key", default="")
    options = parser.parse_args()
    p = Probe(options.url, {"master": options.master_key, "system": options.system_key})
    for _ in range(300):
        if p.raw("GET", "/api/respond/text")[0] == 200:
            break
        time.sleep(0.2)
    else:
        raise SystemExit("the host does not answer")
    for part in options.parts.split(","):
        ask_part(p, part, options.kill_worker)
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump(p.log, file, indent=1, ensure_ascii=False)
    print(len(p.log), "answers")
    if options.compare:
        with open(options.compare, encoding="utf-8") as file:
            recorded = json.load(file)
        differing = 0
        for name, answer in p.log.items():
            found = list(differences("", recorded.get(name, "<not recorded>"), answer))
            differing += bool(found)
            for path, expected, got in found:
                print(f"{name}{path}\n    recorded {json.dumps(expected)[:300]}\n    found    {json.dumps(got)[:300]}")
        print(f"{differing} of {len(p.log)} answers differ")


if __name__ == "__main__":
    main()
