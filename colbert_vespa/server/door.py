"""Who may come in."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from colbert_vespa.server.access import EVERYTHING, Access
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.running import is_loopback

__all__ = ["Door", "OpenDoor"]


class Door:
    """Says what the caller of a request may do."""

    def admitted(self, request: HTTPConnection, role: str) -> Access:
        """Raises: Refusal where the caller may not do what `role` may."""
        raise NotImplementedError


class OpenDoor(Door):
    """Without keys: everything for every program of this machine, and for pages of this server's own, not those that a browser
    shows from elsewhere."""

    def __init__(self, origins: Sequence[str] = ()) -> None:
        """origins: whose pages may ask, too."""
        self._origins = frozenset(origins)

    def admitted(self, request: HTTPConnection, role: str) -> Access:
        host = request.headers.get("host", "")
        if not is_loopback(_name(host)):  # a name elsewhere that has been made to mean this machine
            raise Refusal(421, "without keys the server answers to names of this machine alone, as localhost")
        origin = request.headers.get("origin")
        if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            raise Refusal(403, "pages of another origin may not ask this server; --cors names those that may")
        return EVERYTHING


def _name(host: str) -> str:
    """Without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
