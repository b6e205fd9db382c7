"""The proxy on the way to a server, as the environment names it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.errors import SettingsError
from shared.setting_reference import is_reference, reference_problem

if TYPE_CHECKING:
    from collections.abc import Mapping


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Give the URL of the proxy that HTTPS_PROXY names for `url`, None where there is none or NO_PROXY excepts it.

    Names in lower case go before those in upper case, as everywhere.

    Raises:
        SettingsError: what HTTPS_PROXY names is no http or https URL, or the platform has not resolved it.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        # Plain http is for a loopback address: no proxy is on the way to it, and none may read the access token.
        return None
    # Upper case is sorted before lower case, which therefore stays.
    named = {name.lower(): text.strip() for name, text in sorted(environ.items())}
    proxy = named.get("https_proxy")
    if not proxy or _is_excepted({parts.hostname or "", parts.netloc.lower()}, named.get("no_proxy", "")):
        return None
    if is_reference(proxy):
        raise SettingsError([reference_problem("HTTPS_PROXY")])
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        server = urlsplit(proxy)
        is_usable = server.scheme in {"http", "https"} and bool(server.hostname) and server.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise SettingsError(["HTTPS_PROXY must be an http or https URL"])
    return proxy


def _is_excepted(hosts: set[str], no_proxy: str) -> bool:
    """Tell whether NO_PROXY names one of `hosts`, a domain above it, or all ("*")."""
    names = [name.strip().lower().removeprefix(".") for name in no_proxy.split(",")]
    return any(name in {"*", host} or (name and host.endswith("." + name)) for name in names for host in hosts)
