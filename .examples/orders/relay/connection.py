"""Where the app is and which function key it wants: from options, the environment or a configuration file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from relay.errors import usage_error

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "http://127.0.0.1:7071"
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True)
class Connection:
    """The app's root URL without a slash at the end, the function key, and where each comes from."""

    url: str
    key: str | None = field(repr=False)
    url_source: str
    key_source: str


def config_path(environ: Mapping[str, str]) -> Path:
    """Return the path of the configuration file, which need not exist."""
    return _directory(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def state_path(environ: Mapping[str, str]) -> Path:
    """Return the directory of the journals, which need not exist."""
    return _directory(environ, "XDG_STATE_HOME", ".local/state")


def find_connection(url: str | None, key: str | None, environ: Mapping[str, str]) -> Connection:
    """Return the connection; an option goes before the environment, which goes before the file.

    Raises:
        CommandError: the URL cannot be used, or the file is not what it should be.
    """
    path = config_path(environ)
    config = _read_config(path)
    found: dict[str, tuple[str | None, str]] = {}
    for name, option in (("url", url), ("key", key)):
        candidates = (
            (option, f"--{name}"),
            (environ.get(f"RELAY_{name.upper()}"), f"RELAY_{name.upper()}"),
            (config.get(name), str(path)),
        )
        found[name] = next(((value.strip(), source) for value, source in candidates if value), (None, "not set"))
    address, url_source = found["url"]
    if address is None:
        address, url_source = DEFAULT_URL, "default"
    secret, key_source = found["key"]
    if secret is not None and not (secret.isascii() and secret.isprintable()):
        raise usage_error(f"The key of {key_source} is not printable ASCII.", "Copy it again.")
    return Connection(_root(address, url_source, has_key=secret is not None), secret, url_source, key_source)


def _root(url: str, source: str, *, has_key: bool) -> str:
    """Check the URL. It is not repeated in an error, because it may hold a key."""
    advice = f"Use the app's root, such as https://my-app.azurewebsites.net or {DEFAULT_URL}."
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise usage_error(f"The URL of {source} is not a URL.", advice) from None
    if parts.scheme not in {"http", "https"} or not host:
        raise usage_error(f"The URL of {source} must begin with https:// or http:// and name a host.", advice)
    if parts.query or parts.fragment or parts.username is not None:
        raise usage_error(f"The URL of {source} must not have a query or user.", "Pass a function key with RELAY_KEY.")
    if has_key and parts.scheme == "http" and host not in _LOOPBACK:
        raise usage_error(f"The key would travel unencrypted to {host}.", "Use an https URL, or leave out the key.")
    return url.rstrip("/").removesuffix("/api")


def _read_config(path: Path) -> dict[str, str]:
    advice = 'Its lines are: url = "https://…" and key = "…".'
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        # A TOML error may quote a line with the key.
        reason = exc.strerror if isinstance(exc, OSError) else "it is not TOML"
        raise usage_error(f"{path} cannot be read: {reason}.", advice) from None
    for name, value in content.items():
        if name not in {"url", "key"} or not isinstance(value, str):
            raise usage_error(f"{path}: {name} is not a setting, or not a text.", advice)
    return content


def _directory(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    return Path(environ.get(variable) or Path.home() / below_home) / "relay"
