"""A small project to package, and what the Core Tools would deploy of one."""

from __future__ import annotations

import os
import re
from pathlib import Path

PROJECT = Path(__file__).parent.parent
SECRET_FILES = (
    "local.settings.json",
    "shared/client.pem",
    "client.pem",
    "shared/auth/key.pfx",
    ".env",
    "shared/.env",
    "new-secret",
    "shared/client-secret.txt",
    "certificate.p12",
    "id_rsa",
    "venv/pyvenv.cfg",
    "node_modules/azurite/index.js",
    "__azurite_db_blob__.json",
    "uv.lock",
)


def small_project(root: Path) -> Path:
    """Make a small project with this project's .funcignore, and with secrets under usual names."""
    contents = {
        ".funcignore": (PROJECT / ".funcignore").read_text(),
        "function_app.py": "app = 1\n",
        "host.json": '{"version": "2.0"}',
        "host.dts.json": '{"version": "2.0", "durable": "dts"}',
        "requirements.txt": "# Why\nmsgspec==1\n",
        "requirements-otlp.txt": "sdk==2\n",
        "deployment/locks/app.txt": "msgspec==1 --hash=m\n",
        "deployment/locks/azure-monitor.txt": "msgspec==1 --hash=m\nmonitor==3 --hash=x\n",
        "requirements-azure-monitor.txt": "monitor==3\n",
        "shared/__init__.py": "",
        "shared/__pycache__/x.cpython-313.pyc": "cache",
        "shared/tests/model.py": "the app's own, whatever the name\n",
        "tests/test_x.py": "assert True\n",
        ".venv/lib/site.py": "",
        ".git/config": "",
        "sandbox/__main__.py": "",
        "local.settings.json.example": "{}",
        **dict.fromkeys(SECRET_FILES, "a secret"),
    }
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def core_tools_paths(project: Path) -> set[str]:
    """Give what the Core Tools would deploy: their rules for .funcignore, which are not those of .gitignore.

    Each pattern becomes a regular expression that is matched at the start of the path and must end at a word boundary;
    "*" is one or more characters of a name, "**" one or more characters; order does not count, and "!" always wins.
    (GitIgnoreParser.cs and FileSystemHelpers.GetLocalFiles.)
    """
    lines = [line.strip() for line in (project / ".funcignore").read_text().splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert not [pattern for pattern in patterns if pattern.startswith("!")]

    def expression(pattern: str) -> str:
        escaped = re.sub(r"[\-\[\]/{}()+?.\\^$|]", r"\\\g<0>", pattern.removeprefix("/"))
        return escaped.replace("**", "(.+)").replace("*", "([^/]+)")

    denied = re.compile("^((" + ")|(".join(map(expression, patterns)) + r"))\b", re.ASCII)
    never = {".funcignore", ".gitignore", "local.settings.json", "project.lock.json"}
    found: set[str] = set()
    for folder, folders, files in os.walk(project):
        folders[:] = [name for name in folders if name not in {".git", ".vscode"}]
        paths = ((Path(folder) / name).relative_to(project).as_posix() for name in files if name not in never)
        found |= {path for path in paths if not denied.match(path)}
    return found
