"""Addresses of Vespa, as users give them. One that carries a password is refused, and never shown."""

from __future__ import annotations

import httpx

from late_interaction.errors import UsageError

__all__ = ["is_local", "is_url", "parse_address"]

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_LAST_PORT = 65535


def is_url(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def is_local(address: httpx.URL) -> bool:
    """Whether what is sent there stays on this machine."""
    return address.host in _LOCAL_HOSTS


def parse_address(url: str, name: str = "") -> httpx.URL:
    """name: of the setting or option that it comes from.

    Raises: UsageError where it is no http(s) URL with a host, or has a user or password in it.
    """
    said = f"{name}: " if name else ""
    if "@" in url:
        raise UsageError(
            f"{said}an address has no @, user or password in it (it is not shown here): name files with "
            "COLBERT_VESPA_CERT and COLBERT_VESPA_KEY, or COLBERT_VESPA_TOKEN_FILE"
        )
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        parsed = httpx.URL("")
    port = _LAST_PORT if parsed.port is None else parsed.port
    host_ok = parsed.host and not any(sign in parsed.host for sign in "% ")
    if parsed.scheme not in ("http", "https") or not host_ok or not 0 < port <= _LAST_PORT:
        raise UsageError(f"{said}{url!r} is no address: wanted http(s)://host:port")
    return parsed
