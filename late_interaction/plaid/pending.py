"""What a writer was given since the last commit: one file, `pending/log`, that only grows.

    8 bytes   "CVPEND01"
    8 bytes   the version that the writer started from
    records   header 24 bytes (kind, rows, bytes of JSON, crc32 of all that follows), JSON padded to 4 bytes,
              float32 rows [rows, dim]

A record counts once it is whole and its checksum fits; whatever comes after the first that is not is cut off.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError
from late_interaction.files import fsync_folder

__all__ = ["PUT", "REMOVE_DOCUMENT", "REMOVE_PASSAGE", "PendingLog", "Record"]

MAGIC = b"CVPEND01"
PUT, REMOVE_PASSAGE, REMOVE_DOCUMENT = 1, 2, 3
_START = struct.Struct("<8sq")
_HEADER = struct.Struct("<4sIQII")
_MARK = b"REC\n"
BUFFER_BYTES = 1 << 20
Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Record:
    """`place`: where the record starts in the log. `passage` of a put; `id` of what is put or removed."""

    kind: int
    id: str
    place: int
    rows: int
    passage: Passage | None


class PendingLog:
    """The log of one index folder, open for one writer. `recovered`: the whole records that an interrupted run left."""

    def __init__(self, root: Path, dim: int, base: int, *, resume: bool) -> None:
        """Opens the log of an interrupted run of the same version where `resume` and there is one, else starts a new one."""
        self.folder = root / "pending"
        self._path = self.folder / "log"
        self._dim = dim
        self._base = base
        self.recovered: list[Record] = []
        if not (resume and self._recover()):
            self._start()
        self._file = self._path.open("r+b", buffering=BUFFER_BYTES)
        self._end = self._file.seek(0, os.SEEK_END)

    def _start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        self._path.write_bytes(_START.pack(MAGIC, self._base))
        fsync_folder(self.folder)

    def restart(self, base: int) -> None:
        """Forgets everything; the next commit will be based on version `base`."""
        self._file.close()
        self._base = base
        self._start()
        self._file = self._path.open("r+b", buffering=BUFFER_BYTES)
        self._end = self._file.seek(0, os.SEEK_END)

    def append(self, kind: int, id_: str, passage: Passage | None = None, vectors: Matrix | None = None) -> int:
        """Where the record starts."""
        body: object = [id_] if passage is None else [id_, passage.document_id, passage.title, passage.text, passage.metadata]
        text = json.dumps(body, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        rows = b"" if vectors is None else np.ascontiguousarray(vectors, "<f4").tobytes()
        count = 0 if vectors is None else len(vectors)
        checksum = zlib.crc32(rows, zlib.crc32(text, zlib.crc32(struct.pack("<IQI", kind, count, len(text)))))
        place = self._end
        try:
            self._file.write(_HEADER.pack(_MARK, kind, count, len(text), checksum) + text + rows)
        except OSError as error:
            raise LocalIndexError(f"{self._path} cannot be written: {error}") from None
        self._end += _HEADER.size + len(text) + len(rows)
        return place

    def flush(self) -> None:
        """Everything appended is durable when this returns."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise LocalIndexError(f"{self._path} cannot be written: {error}") from None

    def close(self) -> None:
        self._file.close()

    def read(self, places: Sequence[int]) -> Iterator[tuple[Passage, Matrix]]:
        """Passage and vectors `[t, d]` of the puts at `places`. Call `flush` before."""
        with self._path.open("rb", buffering=BUFFER_BYTES) as file:
            for place in places:
                file.seek(place)
                record, vectors = self._next(file, place)
                if record is None or record.passage is None:
                    raise LocalIndexError(f"{self._path} is damaged at byte {place}: feed again without --resume")
                yield record.passage, vectors

    def _recover(self) -> bool:
        try:
            with self._path.open("rb", buffering=BUFFER_BYTES) as file:
                start = file.read(_START.size)
                if len(start) != _START.size or _START.unpack(start) != (MAGIC, self._base):
                    return False
                place = _START.size
                while (record := self._next(file, place)[0]) is not None:
                    self.recovered.append(record)
                    place = file.tell()
        except FileNotFoundError:
            return False
        with self._path.open("r+b") as opened:
            opened.truncate(place)
            os.fsync(opened.fileno())
        return True

    def _next(self, file: BinaryIO, place: int) -> tuple[Record | None, Matrix]:
        """The record at the file's position, which is `place`, and its vectors; None where it is not whole."""
        nothing: Matrix = np.empty((0, self._dim), np.float32)
        header = file.read(_HEADER.size)
        if len(header) != _HEADER.size:
            return None, nothing
        mark, kind, rows, size, checksum = _HEADER.unpack(header)
        left = os.fstat(file.fileno()).st_size - place - _HEADER.size
        if mark != _MARK or size + rows * self._dim * 4 > left:
            return None, nothing
        text, data = file.read(size), file.read(rows * self._dim * 4)
        if zlib.crc32(data, zlib.crc32(text, zlib.crc32(struct.pack("<IQI", kind, rows, size)))) != checksum:
            return None, nothing
        body = json.loads(text)
        passage = Passage(*body) if kind == PUT else None
        return Record(kind, body[0], place, rows, passage), np.frombuffer(data, "<f4").reshape(rows, self._dim)
