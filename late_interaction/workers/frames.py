"""The protocol between a process and its workers: frames of JSON and raw float32 rows.

4 bytes   "CVSH"
8 bytes   number of the request, or of the request that is answered (uint64, little-endian)
4 bytes   bytes of JSON (uint32)
8 bytes   bytes of rows (uint64)
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from late_interaction.array_types import Matrix

__all__ = ["BLOCK", "HELLO", "Frame", "pack", "read_frame", "serve", "split_rows", "take_frame"]

HELLO = 0  # number of the frame that a worker sends when it is ready
MARK = b"CVSH"
BLOCK = 1 << 20  # bytes read at a time
_HEADER = struct.Struct("<4sQIQ")


@dataclass(frozen=True, slots=True)
class Frame:
    """A request or an answer: its number, a JSON object and raw rows."""

    number: int
    body: dict[str, Any]
    rows: bytes


def pack(number: int, body: dict[str, Any], rows: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    text = json.dumps(body, separators=(",", ":")).encode()
    return _HEADER.pack(MARK, number, len(text), len(rows)) + text + rows


def take_frame(buffer: bytearray) -> Frame | None:
    """Take the first frame out of the buffer; None if it is incomplete.

    Raises:
        ValueError: if the bytes are not a frame.
    """
    if len(buffer) < _HEADER.size:
        return None
    mark, number, text_bytes, row_bytes = _HEADER.unpack_from(buffer)
    if mark != MARK:
        raise ValueError("the bytes are not a frame")
    rows_start = _HEADER.size + text_bytes
    end = rows_start + row_bytes
    if len(buffer) < end:
        return None
    body = json.loads(buffer[_HEADER.size : rows_start])
    if not isinstance(body, dict):
        raise ValueError("a frame must contain a JSON object")
    frame = Frame(number, body, bytes(buffer[rows_start:end]))
    del buffer[:end]
    return frame


def read_frame(connection: socket.socket, buffer: bytearray) -> Frame | None:
    """Return the next frame; None if the other side has closed.

    Raises:
        OSError: if the connection fails.
        ValueError: if the bytes are not a frame.
    """
    while (frame := take_frame(buffer)) is None:
        data = connection.recv(BLOCK)
        if not data:
            return None
        buffer += data
    return frame


def split_rows(rows: bytes, counts: Sequence[int], dim: int) -> list[Matrix]:
    """Return the matrices `[count, dim]` that are stored one after the other at the start of `rows`."""
    every = np.frombuffer(rows, "<f4", sum(counts) * dim).reshape(-1, dim).astype(np.float32)
    return np.split(every, np.cumsum(counts)[:-1])


def serve(answer: Callable[[Frame], dict[str, Any]], connection: socket.socket) -> None:
    """Answer requests in order, until the other side closes."""
    buffer = bytearray()
    try:
        connection.sendall(pack(HELLO, {}))
        while (request := read_frame(connection, buffer)) is not None:
            connection.sendall(pack(request.number, answer(request)))
    except ConnectionError:  # the other side closed in the middle of an answer
        return
