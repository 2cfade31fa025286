"""Operations of Vespa's document/v1: method, path with query, body.

put replaces a document, update assigns some of its fields, remove deletes it. `condition` is a test-and-set condition in
Vespa's selection language: if it does not hold, Vespa answers 412 and changes nothing. `create` makes a document that does
not exist yet.
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
_LEVEL = 1  # hexadecimal cells shrink to half at any level; level 1 takes a fifth of the default's time


@dataclass(frozen=True, slots=True)
class Operation:
    """A request.

    Attributes:
        method: POST, PUT or DELETE.
        path: path with query, below the address.
        body: JSON, or its gzip.
        gzipped: whether the body is compressed.
    """

    method: str
    path: str
    body: bytes = b""
    gzipped: bool = False

    @property
    def kind(self) -> str:
        """Return put, update or remove."""
        return KINDS[self.method]

    def compressed(self) -> Operation:
        """Return the operation with a body of more than 512 bytes compressed."""
        if self.gzipped or len(self.body) <= SMALL:
            return self
        packer = zlib.compressobj(_LEVEL, wbits=31)
        return Operation(self.method, self.path, packer.compress(self.body) + packer.flush(), gzipped=True)


def put(path: str, fields: Mapping[str, object], *, condition: str = "", create: bool = False) -> Operation:
    """Return a put.

    Raises:
        ValueError: if a value is not JSON, such as NaN.
    """
    return Operation("POST", path + _query(condition, create), _json({"fields": fields}))


def update(path: str, values: Mapping[str, object], *, condition: str = "", create: bool = False) -> Operation:
    """Return an update that assigns `values` (None for no value) and leaves all other fields alone.

    Raises:
        ValueError: as in `put`.
    """
    assigned = {name: {"assign": value} for name, value in values.items()}
    return Operation("PUT", path + _query(condition, create), _json({"fields": assigned}))


def remove(path: str, *, condition: str = "") -> Operation:
    """Return a remove."""
    return Operation("DELETE", path + _query(condition, False))


def _json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()


def _query(condition: str, create: bool) -> str:
    parts = [f"condition={quote(condition, safe='')}"] * bool(condition) + ["create=true"] * create
    return "?" + "&".join(parts) if parts else ""
