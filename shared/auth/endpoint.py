"""Where secrets may be sent: the rule for the address of a token endpoint or an issuer."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def endpoint_problem(url: str) -> str | None:
    """Say what keeps `url` from being sent a secret, None where nothing does.

    It must be https (RFC 6749 section 3.2), plain http only to a loopback address, with no user name, password or
    fragment in it. The words never repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        return "it is not a URL"
    if not host or any(c.isspace() or not c.isprintable() for c in url):
        return "it is not an absolute URL"
    if parts.username is not None or parts.password is not None:
        return "it has a user name or a password in it"
    if "#" in url:
        return "it has a fragment"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return "it must be https, or plain http to a loopback address"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
