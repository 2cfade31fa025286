"""URLs of Vespa for httpx. What is a URL at all is decided in late_interaction/addresses.py."""

from __future__ import annotations

import httpx

from late_interaction.addresses import vespa_url
from late_interaction.errors import UsageError

__all__ = ["is_local", "parse_address"]

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def is_local(address: httpx.URL) -> bool:
    """Whether what is sent there stays on this machine."""
    return address.host in _LOCAL_HOSTS


def parse_address(url: str, name: str = "") -> httpx.URL:
    """Of a server, without the name of an index. name: of the setting or option that it comes from.

    Raises: UsageError where it is not an http(s) URL with a host, or has a user, password, path or index in it.
    """
    said = f"{name}: " if name else ""
    place = vespa_url(url, name)
    if place.index:
        raise UsageError(f"{said}{url!r} names an index, where the URL of a server is needed: leave #{place.index} out")
    try:
        return httpx.URL(place.url)
    except (httpx.InvalidURL, ValueError):
        raise UsageError(f"{said}{url!r} is not an address: write http(s)://host:port") from None
