"""What stands between the app and other servers: a proxy, and the certificates that TLS trusts."""

from __future__ import annotations

import functools
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.errors import SettingsError
from shared.settings.reader import is_reference, reference_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_making_tls = threading.Lock()


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy that HTTPS_PROXY names for `url`, None if there is none or NO_PROXY excepts it.

    Names in lower case go before those in upper case, as everywhere.

    Raises:
        SettingsError: HTTPS_PROXY is no http or https URL, or the platform has not resolved it.
    """
    try:
        parts = urlsplit(url)
        hosts = {parts.hostname or "", parts.netloc.lower()}
    except ValueError:  # a problem of the setting that holds the URL
        return None
    if parts.scheme != "https":
        # Plain http is for a loopback address: no proxy is on the way to it, and none may read the access token.
        return None
    # Upper case is sorted before lower case, which therefore stays.
    named = {name.lower(): text.strip() for name, text in sorted(environ.items())}
    proxy = named.get("https_proxy")
    if not proxy or _is_excepted(hosts, named.get("no_proxy", "")):
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
    """Return whether NO_PROXY names one of `hosts`, a domain above it, or all ("*")."""
    names = [name.strip().lower().removeprefix(".") for name in no_proxy.split(",")]
    return any(name in {"*", host} or (name and host.endswith("." + name)) for name in names for host in hosts)


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return the process's one TLS context for these settings, which takes 40 to 90 ms to make.

    It trusts the roots of certifi. SSL_CERT_FILE (a PEM file) and SSL_CERT_DIR (a folder as c_rehash makes it) replace
    them.

    Raises:
        SettingsError: one of the two is not there, cannot be read, or holds no certificate.
    """
    file, folder = environ.get("SSL_CERT_FILE", "").strip(), environ.get("SSL_CERT_DIR", "").strip()
    problems = []
    if file:
        try:
            Path(file).open("rb").close()
        except OSError as exc:
            problems.append(f"SSL_CERT_FILE names a file that cannot be read: {exc.strerror}")
    if folder:
        try:
            next(Path(folder).iterdir(), None)
        except OSError as exc:
            problems.append(f"SSL_CERT_DIR names a folder that cannot be read: {exc.strerror}")
    if problems:
        raise SettingsError(problems)
    with _making_tls:  # two clients may be built at once
        return _make_tls_context(file or None, folder or None)


@functools.cache
def _make_tls_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    if file or folder:
        try:
            return ssl.create_default_context(cafile=file, capath=folder)
        except OSError:  # SSLError is one
            raise SettingsError(["SSL_CERT_FILE holds no certificates in PEM form"]) from None
    import httpx  # noqa: PLC0415, the settings are read long before the first call

    return httpx.create_ssl_context(trust_env=False)
