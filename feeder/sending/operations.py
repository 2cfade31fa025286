"""Operations of Vespa's document/v1 as what is sent: method, path with query, body.

put replaces a document, update assigns some of its fields, remove takes it away. `condition` is a test-and-set condition in
Vespa's selection language: where it does not hold, Vespa answers 412 and changes nothing. `create` makes a document that is
not there yet.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

__all__ = ["KINDS", "Compression", "Operation", "put", "remove", "update"]

Compression = Literal["auto", "gzip", "none"]
KINDS = {"POST": "put", "PUT": "update", "DELETE": "remove"}
SMALL = 512  # bytes; smaller bodies gain nothing from gzip
_LEVEL = 1  # hexadecimal cells shrink to half at any level, and the first takes a fifth of the default's time


@dataclass(frozen=True, slots=True)
class Operation:
    """method: POST, PUT or DELETE. path: with its query, below the address. body: JSON, or its gzip."""

    method: str
    path: str
    body: bytes = b""
    gzipped: bool = False

    @property
    def kind(self) -> str:
        return KINDS[self.method]

    def compressed(self) -> Operation:
        """With a body of more than 512 bytes as gzip."""
        if self.gzipped or len(self.body) <= SMALL:
            return self
        packer = zlib.compressobj(_LEVEL, wbits=31)
        return Operation(self.method, self.path, packer.compress(self.body) + packer.flush(), gzipped=True)


def put(path: str, fields: Mapping[str, object], *, condition: str = "", create: bool = False) -> Operation:
    """Raises: ValueError where a value is no JSON, as NaN is none."""
    return Operation("POST", path + _query(condition, create), _json({"fields": fields}))


def update(path: str, values: Mapping[str, object], *, condition: str = "", create: bool = False) -> Operation:
    """Assigns `values`, None for no value, and leaves all other fields as they are. Raises: ValueError as put."""
    assigned = {name: {"assign": value} for name, value in values.items()}
    return Operation("PUT", path + _query(condition, create), _json({"fields": assigned}))


def remove(path: str, *, condition: str = "") -> Operation:
    return Operation("DELETE", path + _query(condition, False))


def _json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _query(condition: str, create: bool) -> str:
    parts = [f"condition={quote(condition, safe='')}"] * bool(condition) + ["create=true"] * create
    return "?" + "&".join(parts) if parts else ""
