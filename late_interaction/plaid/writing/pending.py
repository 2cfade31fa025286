"""The log of a writer's changes since the last commit: one file, `pending/log`, that only grows.

    8 bytes   "CVPEND03"; an older log, "CVPEND02", has no ids: it is read too, and continued as it is
    8 bytes   the version that the writer started from
    4 bytes   crc32 of these
    2 x 12    how many bytes of the file are durable (int64) and the crc32 of that; written in turn, so that one is whole
    records   header 24 bytes (kind, rows, bytes of JSON, crc32 of all that follows), JSON padded to 4 bytes,
              float32 rows [rows, dim]; of a put of codes and residuals each row is the bytes of both, zero-padded.
              If the ids of the rows are known, 256 is added to the kind, and int32 ids [rows] follow. If the index
              has dense models, 512 is added to that of a put, and float32 [width] follows: the vectors of all models

A record counts if it is complete and its checksum fits. After the durable bytes, everything from the first broken record on
was torn by a crash and is cut off; a broken record within the durable bytes is damage, and an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from late_interaction.array_types import TokenVectors, Vector
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError
from late_interaction.files import atomic_write, fsync_folder

__all__ = ["NO_DENSE", "PUT", "PUT_ENCODED", "REMOVE_DOCUMENT", "REMOVE_PASSAGE", "UPDATE", "LogRecord", "PendingLog"]

MAGIC, WITHOUT_IDS = b"CVPEND03", b"CVPEND02"
PUT, REMOVE_PASSAGE, REMOVE_DOCUMENT, UPDATE, PUT_ENCODED = 1, 2, 3, 4, 5
_START = struct.Struct("<8sqI")
_DURABLE = struct.Struct("<qI")
FIRST = _START.size + 2 * _DURABLE.size  # place of the first record
_HEADER = struct.Struct("<4sIQII")
_MARK = b"REC\n"
_HAS_IDS, _HAS_DENSE = 1 << 8, 1 << 9  # flags of the kind in a record
_FLAGS = _HAS_IDS | _HAS_DENSE
NO_DENSE = np.zeros(0, np.float32)
_PASSAGE = msgspec.json.Decoder(tuple[str, str, str, str, dict[str, Any], str])
_REMOVAL = msgspec.json.Decoder(tuple[str])
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A put, an update or a removal.

    Attributes:
        kind: which of these.
        id: the passage's id; of a removal, the id removed.
        document_id: the document's id.
        place: where the record starts.
        end: where it ends.
        rows: number of rows; an update has none.
        digest: digest of a put or an update.
    """

    kind: int
    id: str
    document_id: str
    place: int
    end: int
    rows: int
    digest: str


class PendingLog:
    """The log of one index folder, for one writer. No file is touched before the first `append`.

    Records wait in a buffer until they are written, so that a disk error leaves both file and buffer unchanged.
    """

    def __init__(self, root: Path, dim: int, base: int, dense: int = 0) -> None:
        """Prepare a log. base: version that the writer starts from. dense: total dimensions of a put's dense vectors."""
        self.folder = root / "pending"
        self._path = self.folder / "log"
        self._dim = dim
        self._dense = dense
        self._base = base
        self._descriptor: int | None = None
        self._buffer = bytearray()  # records that are not in the file yet
        self._written = self._flushed = 0  # bytes of the file; those that are durable
        self._flushes = 0
        self._broken = ""

    @property
    def left_over(self) -> bool:
        """Tell whether an interrupted run of this version has left a record, or a damaged log."""
        try:
            return next(self.records(), None) is not None
        except LocalIndexError:
            return True

    def check(self) -> None:
        """Read everything that an interrupted run of this version made durable.

        Raises:
            LocalIndexError: if that is damaged.
        """
        for _ in self.records():
            pass

    def resume(self) -> Iterator[LogRecord]:
        """Yield the complete records that an interrupted run of this version left; new ones follow them.

        Raises:
            LocalIndexError: if the log is damaged, or the disk refuses.
        """
        end = 0
        for record in self.records():
            yield record
            end = record.end
        if end:
            with self._named_errors():
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                os.ftruncate(self._descriptor, end)
                self._written = end
                self._make_durable()

    def restart(self, base: int) -> None:
        """Forget everything; the next commit is based on version `base`."""
        self._close()
        with self._named_errors():
            self._path.unlink(missing_ok=True)
        self._base = base
        self._buffer.clear()
        self._written = self._flushed = 0

    def append(
        self,
        kind: int,
        id_: str,
        passage: Passage | None = None,
        rows: TokenVectors | None = None,
        dense: Vector = NO_DENSE,
    ) -> int:
        """Append a record, and return where it starts.

        Args:
            kind: what it is.
            id_: the id.
            passage: the passage of a put or an update.
            rows: rows of a put.
            dense: a put's vectors of all dense models, one after the other.

        Raises:
            LocalIndexError: if the disk refuses; the log is unchanged then.
        """
        if self._broken:
            raise LocalIndexError(self._broken)
        if self._descriptor is None:
            with self._named_errors():
                self._start()
        record = _packed(kind, id_, passage, rows, dense)
        place = self._written + len(self._buffer)
        self._buffer += record
        if len(self._buffer) >= BUFFER_BYTES:
            try:
                self._drain()
            except LocalIndexError:
                del self._buffer[-len(record) :]
                raise
        return place

    def flush(self) -> None:
        """Make everything appended durable.

        Raises:
            LocalIndexError: if the disk refuses.
        """
        if self._broken:
            raise LocalIndexError(self._broken)
        if self._descriptor is None:
            return
        self._drain()
        try:
            self._make_durable()
        except OSError as error:  # the system's cached state may then differ from the disk
            self._broken = f"{self._path} could not be made durable ({error}); open a new writer"
            raise LocalIndexError(self._broken) from None

    def close(self) -> None:
        """Close the log; what was flushed stays, and no file stays if nothing was."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._flushed:
                os.ftruncate(self._descriptor, self._flushed)
            else:
                self._path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        fsync_folder(self.folder.parent)
        atomic_write(self._path, _start_of(self._base) + 2 * _durable(FIRST))  # so a log with half a header counts as damaged
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._written = FIRST

    def _make_durable(self) -> None:
        """Sync the records first, then their number of bytes, so that this never exceeds what the disk has."""
        assert self._descriptor is not None
        if self._written == self._flushed:
            return
        os.fsync(self._descriptor)
        self._flushes += 1
        os.pwrite(self._descriptor, _durable(self._written), _START.size + self._flushes % 2 * _DURABLE.size)
        os.fsync(self._descriptor)
        self._flushed = self._written

    def _drain(self) -> None:
        """Write the buffer; if the disk refuses, the file keeps its length and the buffer is kept."""
        assert self._descriptor is not None
        left, place = memoryview(self._buffer), self._written
        try:
            while left:
                count = os.pwrite(self._descriptor, left, place)
                left, place = left[count:], place + count
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._written)
            raise LocalIndexError(f"{self._path} cannot be written: {error}") from None
        finally:
            left.release()
        self._written = place
        self._buffer.clear()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalIndexError(f"{self._path} cannot be written: {error}") from None

    def read(self, places: Sequence[int]) -> Iterator[tuple[Passage, TokenVectors, Vector]]:
        """Yield passage, rows and dense vectors of the puts and updates at `places`. Call `flush` before."""
        if not places:
            return
        with self._path.open("rb", buffering=BUFFER_BYTES) as file:
            for place in places:
                file.seek(place)
                read = self._next(file, place)
                if read is None or read[1] is None:
                    raise self._damage(place)
                yield read[1], read[2], read[3]

    def records(self) -> Iterator[LogRecord]:
        """Yield the complete records of a log of this version; none if there is no such log.

        Raises:
            LocalIndexError: if the header or a durable record is damaged.
        """
        try:
            file = self._path.open("rb", buffering=BUFFER_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LocalIndexError(f"{self._path} cannot be read: {error}") from None
        with file:
            start = file.read(FIRST)
            base = _base_of(start)
            durable = [length for place in (0, 1) if (length := _length_of(start, place)) is not None]
            if base is None or not durable:
                raise self._damage(0)
            if base != self._base:
                return
            self._flushes = 1 if _length_of(start, 1) == max(durable) else 0
            place = FIRST
            while (read := self._next(file, place)) is not None:
                yield read[0]
                place = read[0].end
            if place < max(durable):
                raise self._damage(place)

    def _damage(self, place: int) -> LocalIndexError:
        root = self.folder.parent
        return LocalIndexError(
            f"{self._path} is damaged at byte {place}; its changes were never committed: drop them with "
            f"`colbert-vespa index discard {root}` and feed again"
        )

    def _next(self, file: BinaryIO, place: int) -> tuple[LogRecord, Passage | None, TokenVectors, Vector] | None:
        """Read the record at the file's position, `place`, with passage, rows and dense vectors; None if it is incomplete."""
        header = file.read(_HEADER.size)
        if len(header) != _HEADER.size:
            return None
        mark, kind, rows, size, checksum = _HEADER.unpack(header)
        plain, has_dense = kind & ~_FLAGS, bool(kind & _HAS_DENSE)
        row_bytes = 4 * rows * (self._dim + bool(kind & _HAS_IDS)) + 4 * self._dense * has_dense
        end = place + _HEADER.size + size + row_bytes
        if mark != _MARK or end > os.fstat(file.fileno()).st_size:
            return None
        if has_dense != (self._dense > 0 and plain in (PUT, PUT_ENCODED)):
            return None
        text, data = file.read(size), file.read(row_bytes)
        if zlib.crc32(data, zlib.crc32(text, zlib.crc32(struct.pack("<IQI", kind, rows, size)))) != checksum:
            return None
        try:
            body: tuple[Any, ...] = (_PASSAGE if plain in (PUT, PUT_ENCODED, UPDATE) else _REMOVAL).decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        passage = Passage(*body) if len(body) > 1 else None
        document_id, digest = ("", "") if passage is None else (passage.document_id, passage.digest)
        record = LogRecord(plain, body[0], document_id, place, end, rows, digest)
        vectors = np.frombuffer(data, "<f4", rows * self._dim).reshape(rows, self._dim)
        token_ids = np.frombuffer(data, "<i4", rows, vectors.nbytes) if kind & _HAS_IDS else None
        dense = np.frombuffer(data, "<f4", self._dense, len(data) - 4 * self._dense) if has_dense else NO_DENSE
        return record, passage, (vectors, token_ids), dense


def _packed(kind: int, id_: str, passage: Passage | None, rows: TokenVectors | None, dense: Vector) -> bytes:
    body: object = [id_]
    if passage is not None:
        body = [id_, passage.document_id, passage.title, passage.text, passage.metadata, passage.digest]
    text = json.dumps(body, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    data, count = b"", 0
    if rows is not None:
        vectors, token_ids = rows
        data, count = np.ascontiguousarray(vectors, "<f4").tobytes(), len(vectors)
        if token_ids is not None and count:
            kind |= _HAS_IDS
            data += token_ids.astype("<i4").tobytes()
    if len(dense):
        kind |= _HAS_DENSE
        data += dense.astype("<f4").tobytes()
    checksum = zlib.crc32(data, zlib.crc32(text, zlib.crc32(struct.pack("<IQI", kind, count, len(text)))))
    return _HEADER.pack(_MARK, kind, count, len(text), checksum) + text + data


def _start_of(base: int, magic: bytes = MAGIC) -> bytes:
    return _START.pack(magic, base, zlib.crc32(struct.pack("<8sq", magic, base)))


def _base_of(start: bytes) -> int | None:
    """Return the version that a log with this header is based on; None if it is damaged."""
    if len(start) != FIRST:
        return None
    base: int = _START.unpack_from(start)[1]
    return base if start[: _START.size] in (_start_of(base), _start_of(base, WITHOUT_IDS)) else None


def _durable(length: int) -> bytes:
    return _DURABLE.pack(length, zlib.crc32(struct.pack("<q", length)))


def _length_of(start: bytes, place: int) -> int | None:
    """Return the durable bytes in the first or second note; None if that is incomplete."""
    note = start[_START.size + place * _DURABLE.size :][: _DURABLE.size]
    if len(note) != _DURABLE.size:
        return None
    length: int = _DURABLE.unpack(note)[0]
    return length if note == _durable(length) else None
