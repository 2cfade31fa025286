"""Authenticate callers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from colbert_vespa.server.access import EVERYTHING, Access
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.guard import LOG
from colbert_vespa.server.keys import CallerKey, KeyFile, key_id, same_key
from colbert_vespa.server.rates import TokenBucket
from colbert_vespa.server.running import is_loopback
from late_interaction.errors import UsageError

__all__ = ["Door", "KeyedDoor", "OpenDoor"]


class Door:
    """Decides what the caller of a request may do."""

    def admitted(self, request: HTTPConnection, role: str) -> Access:
        """Return what the caller may do.

        Raises:
            Refusal: If the caller's role does not include `role`.
        """
        raise NotImplementedError


class OpenDoor(Door):
    """A door without keys: every program of this machine has all rights.

    Of the pages that a browser shows, only those of this server and of the allowed origins are admitted.
    """

    def __init__(self, origins: Sequence[str] = ()) -> None:
        """Create a door that also admits pages of these origins."""
        self._origins = frozenset(origins)

    def admitted(self, request: HTTPConnection, role: str) -> Access:
        """Admit a request that is addressed to a local name and does not come from a page of another origin.

        Raises:
            Refusal: If the host is not a local name (421), or the origin is not allowed (403).
        """
        host = request.headers.get("host", "")
        if not is_loopback(_name(host)):  # a name elsewhere that has been made to mean this machine
            raise Refusal(421, "without keys the server answers only to local names such as localhost")
        origin = request.headers.get("origin")
        if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            raise Refusal(403, "pages of other origins may not use this server; allow one with --cors")
        return EVERYTHING


class KeyedDoor(Door):
    """A door with keys, which are read again when their file changes."""

    def __init__(self, file: KeyFile, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys.

        Raises:
            UsageError: If the file cannot be read.
        """
        self._file, self._clock = file, clock
        self._keys: dict[str, CallerKey] = {}
        self._buckets: dict[str, TokenBucket] = {}
        self._seen: tuple[int, int, int] | None = None
        self._refresh()

    def _refresh(self) -> None:
        """Read the key file again if it has changed.

        If the file is damaged or cannot be read at the moment, the keys read before stay in force.

        Raises:
            UsageError: If no keys have been read yet.
        """
        try:
            found = self._file.path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen == self._seen:
                return
            keys = {key.id: key for key in self._file.read()}
        except (OSError, UsageError) as error:
            if self._seen is None:
                raise UsageError(f"keys {self._file.path}: {getattr(error, 'strerror', None) or error}") from None
            LOG.error("the file of keys cannot be read; the keys read before stay valid", extra={"error": type(error).__name__})
            return
        changed = {id_ for id_, key in keys.items() if self._keys.get(id_) != key}
        self._buckets = {id_: bucket for id_, bucket in self._buckets.items() if id_ in keys and id_ not in changed}
        self._keys, self._seen = keys, seen

    def admitted(self, request: HTTPConnection, role: str) -> Access:
        """Admit a request with a valid key of a sufficient role.

        Raises:
            Refusal: If the key is missing or not valid (401), its role does not suffice (403), or its rate is exceeded (429).
        """
        self._refresh()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        key = self._keys.get(key_id(token))
        if scheme.lower() != "bearer" or not same_key(token, key) or key is None:
            raise Refusal(401, "send a key in the header Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
        request.scope.setdefault("state", {})["key"] = key.id
        if key.rate is not None:
            bucket = self._buckets.setdefault(key.id, TokenBucket(key.rate, self._clock))
            if seconds := bucket.taken():
                raise Refusal(429, f"this key is limited to {key.rate:g} requests per second", {"Retry-After": str(seconds)})
        access = Access(key.id, key.role, None if key.indexes is None else frozenset(key.indexes), key.where)
        if not access.may(role):
            raise Refusal(403, f"this needs a key of role {role}, but this one has role {key.role}")
        return access


def _name(host: str) -> str:
    """Return a host name without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
