"""Keys of callers: a file with their permissions and hashes.

A key is 256 random bits and cannot be guessed. A single SHA-256 therefore protects it as well as a slow hash, which is for
passwords that people choose, and adds no time to a request.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from colbert_vespa.server.access import ROLES
from late_interaction.errors import UsageError
from late_interaction.files import atomic_write
from late_interaction.structured import Count, read

__all__ = ["CallerKey", "KeyFile", "key_id", "same_key"]

FORMAT = "colbert-vespa keys"
MAX_BYTES = 16 * 1024 * 1024
_TOKEN = re.compile(r"cv_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class CallerKey:
    """A key of a caller, as it is stored.

    Attributes:
        sha256: Checksum of the key.
        created: Time of creation, seconds since 1970.
        rate: Requests per second; None for no limit.
        indexes: Names of the served indexes that the key may see; None for all.
        where: Filter added to every request; documents put with the key must match it.
        revoked: Time of revocation, seconds since 1970; 0 for a valid key.
    """

    id: str
    name: str
    role: str
    sha256: str
    created: Count
    rate: float | None = None
    indexes: tuple[str, ...] | None = None
    where: Mapping[str, Any] | None = None
    revoked: Count = 0

    def check(self) -> None:
        """Check the values of the key.

        Raises:
            UsageError: If a value is not valid.
        """
        if self.role not in ROLES:
            raise UsageError(f"role {self.role!r} is unknown; known: {', '.join(ROLES)}")
        if self.rate is not None and not 0 < self.rate <= 1e6:
            raise UsageError(f"rate must be above 0 and at most a million requests per second, got {self.rate:g}")
        if self.indexes is not None and not all(self.indexes):
            raise UsageError("the name of an index cannot be empty")


@dataclass(frozen=True)
class _Keys:
    format: str
    keys: tuple[CallerKey, ...] = field(default=())


class KeyFile:
    """A JSON file with keys; a new one is readable by its owner only."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._now = now

    def read(self) -> tuple[CallerKey, ...]:
        """Return the keys.

        Raises:
            UsageError: If the file does not exist, or is not a file of keys.
        """
        try:
            with self.path.open("rb") as file:
                text = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"keys {self.path}: {error.strerror or error}") from None
        try:
            if len(text) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES:,} bytes")
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"keys {self.path}: not a file of keys ({error})") from None
        found = read(_Keys, data, UsageError, f"keys {self.path}: ")
        if found.format != FORMAT:
            raise UsageError(f"keys {self.path}: not a file of keys; create one with `colbert-vespa serve keys make`")
        for key in found.keys:
            key.check()
        return found.keys

    def make(
        self,
        name: str,
        role: str,
        *,
        rate: float | None = None,
        indexes: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> tuple[CallerKey, str]:
        """Make a new key, and return it with the text that its caller sends. The text is not stored anywhere.

        Raises:
            UsageError: If a value is not valid.
            OSError: If the file cannot be written.
        """
        id_ = secrets.token_hex(6)
        token = f"cv_{id_}_{secrets.token_urlsafe(32)}"
        given = None if indexes is None else tuple(indexes)
        key = CallerKey(id_, name, role, _hashed(token), int(self._now()), rate, given, where)
        key.check()
        with self._changing() as keys:
            self._write([*keys, key])
        return key, token

    def revoke(self, id_: str) -> CallerKey:
        """Revoke a key.

        Raises:
            UsageError: If the key does not exist, or is revoked already.
        """
        with self._changing() as keys:
            for place, key in enumerate(keys):
                if key.id == id_:
                    if key.revoked:
                        raise UsageError(f"keys {self.path}: key {id_} was revoked before")
                    revoked = replace(key, revoked=int(self._now()))
                    self._write([*keys[:place], revoked, *keys[place + 1 :]])
                    return revoked
        raise UsageError(f"keys {self.path}: there is no key {id_!r}")

    @contextmanager
    def _changing(self) -> Iterator[tuple[CallerKey, ...]]:
        """Yield the keys under a lock, so that no other process changes them."""
        with self.path.with_name(f".{self.path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.read() if self.path.exists() else ()

    def _write(self, keys: Sequence[CallerKey]) -> None:
        data = {"format": FORMAT, "keys": [{n: v for n, v in asdict(key).items() if v is not None} for key in keys]}
        if not self.path.exists():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        atomic_write(self.path, json.dumps(data, indent=1).encode() + b"\n")


def key_id(token: str) -> str:
    """Return the id of a key, or '' if the token is not a key."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else ""


def same_key(token: str, key: CallerKey | None) -> bool:
    """Compare a token with a key in constant time, whether or not the key exists."""
    wanted = "0" * 64 if key is None else key.sha256
    return hmac.compare_digest(_hashed(token), wanted) and key is not None and not key.revoked


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
