"""A small project to package."""

from __future__ import annotations

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
        "orders.csv.gz": "",
        "orders.rejected.csv": "",
        "orders.rejected.csv~": "",
        "orders.ndjson": "",
        **dict.fromkeys(SECRET_FILES, "a secret"),
    }
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root
