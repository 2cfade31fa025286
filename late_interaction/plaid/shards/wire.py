"""What router and workers say to each other: frames of JSON and raw float32 rows. Nothing is pickled.

4 bytes   "CVSH"
8 bytes   number of the request, or of the request that is answered (uint64, little-endian)
4 bytes   bytes of JSON (uint32)
8 bytes   bytes of rows (uint64)
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.documents import Passage
from late_interaction.filters import And, Exists, Filter, In, Near, Not, Or, Range
from late_interaction.plaid.types import LocalHit, LocalResult, SearchSettings

__all__ = [
    "BLOCK",
    "Frame",
    "filter_from_json",
    "filter_to_json",
    "pack",
    "read_frame",
    "result_from_json",
    "result_to_json",
    "settings_from_json",
    "settings_to_json",
    "split_rows",
    "take_frame",
]

MARK = b"CVSH"
BLOCK = 1 << 20  # bytes that are read at a time
_HEADER = struct.Struct("<4sQIQ")


@dataclass(frozen=True, slots=True)
class Frame:
    number: int
    body: dict[str, Any]
    rows: bytes


def pack(number: int, body: dict[str, Any], rows: bytes = b"") -> bytes:
    text = json.dumps(body, separators=(",", ":")).encode()
    return _HEADER.pack(MARK, number, len(text), len(rows)) + text + rows


def take_frame(buffer: bytearray) -> Frame | None:
    """Takes the first frame out of the buffer; None where it is not whole yet.

    Raises: ValueError where the bytes are no frame.
    """
    if len(buffer) < _HEADER.size:
        return None
    mark, number, text_bytes, row_bytes = _HEADER.unpack_from(buffer)
    if mark != MARK:
        raise ValueError("the bytes are no frame")
    rows_start = _HEADER.size + text_bytes
    end = rows_start + row_bytes
    if len(buffer) < end:
        return None
    body = json.loads(buffer[_HEADER.size : rows_start])
    if not isinstance(body, dict):
        raise ValueError("a frame holds an object")
    frame = Frame(number, body, bytes(buffer[rows_start:end]))
    del buffer[:end]
    return frame


def read_frame(connection: socket.socket, buffer: bytearray) -> Frame | None:
    """The next frame; None where the other side has closed. Raises: OSError, ValueError."""
    while (frame := take_frame(buffer)) is None:
        data = connection.recv(BLOCK)
        if not data:
            return None
        buffer += data
    return frame


def split_rows(rows: bytes, counts: Sequence[int], dim: int) -> list[Matrix]:
    """The matrices `[count, dim]` that lie one after the other in `rows`."""
    every = np.frombuffer(rows, "<f4").reshape(-1, dim).astype(np.float32)
    return np.split(every, np.cumsum(counts)[:-1])


def filter_to_json(where: Filter | None) -> list[Any] | None:
    match where:
        case None:
            return None
        case In(field, values):
            return ["in", field, list(values)]
        case Range(field, op, value):
            return ["range", field, op, value]
        case Near(field, lat, lng, km):
            return ["near", field, lat, lng, km]
        case Exists(field):
            return ["exists", field]
        case Not(part):
            return ["not", filter_to_json(part)]
        case And(parts):
            return ["and", [filter_to_json(part) for part in parts]]
        case Or(parts):
            return ["or", [filter_to_json(part) for part in parts]]


def filter_from_json(data: list[Any] | None) -> Filter | None:
    return None if data is None else _filter(data)


def _filter(data: list[Any]) -> Filter:
    kind, *rest = data
    if kind == "in":
        return In(rest[0], tuple(rest[1]))
    if kind in ("and", "or"):
        parts = tuple(_filter(part) for part in rest[0])
        return And(parts) if kind == "and" else Or(parts)
    if kind == "not":
        return Not(_filter(rest[0]))
    makers: dict[str, type[Range] | type[Near] | type[Exists]] = {"range": Range, "near": Near, "exists": Exists}
    return makers[kind](*rest)


def settings_to_json(settings: SearchSettings | None) -> list[int | None] | None:
    return None if settings is None else [settings.probes, settings.rerank]


def settings_from_json(data: list[int | None] | None) -> SearchSettings | None:
    return None if data is None else SearchSettings(*data)


def result_to_json(result: LocalResult) -> dict[str, Any]:
    hits = []
    for hit in result.hits:
        p = hit.passage
        hits.append([p.id, p.document_id, p.title, p.text, dict(p.metadata), hit.score, hit.approximate])
    return {
        "hits": hits,
        "candidates": result.candidates,
        "reranked": result.reranked,
        "widened": result.widened,
        "outgrown": result.outgrown,
        "seconds": dict(result.seconds),
    }


def result_from_json(data: dict[str, Any]) -> LocalResult:
    hits = [LocalHit(Passage(*fields), score, approximate) for *fields, score, approximate in data["hits"]]
    return LocalResult(hits, data["candidates"], data["reranked"], data["widened"], data["seconds"], data["outgrown"])
