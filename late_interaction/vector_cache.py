"""Token vectors cached on disk by content, so that the same text is not encoded twice.

    FOLDER/vectors-2.f32     rows of all entries, one after the other, float32
    FOLDER/entries-2.bin     40-byte records: first 16 bytes of the key's sha256, first row uint64, row count uint32, crc32
of
                             the rows, crc32 of all that, four zeros. The first is the head: key MAGIC, row count the dim

Both files only grow. Rows are durable before the record that names them is written. A record that does not match its
checksum, torn or damaged, counts as a miss. Files `vectors.f32` and `entries.bin` are of an earlier format, which is not
read; they can be removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.errors import ColbertVespaError
from late_interaction.tokenizing import TokenRows

__all__ = ["CachedEncoder", "DocumentEncoder", "VectorCache"]

MAGIC = b"CVVECTORCACHE02\n"
_RECORD = struct.Struct("<16sQIIII")
_CHECKED = _RECORD.size - 8  # bytes of a record that its checksum covers


class DocumentEncoder(Protocol):
    """Turns texts into token vectors `[t, d]`; implemented by `Encoder` and `CachedEncoder`."""

    @property
    def bundle(self) -> Bundle:
        """Return the bundle."""

    @property
    def precision(self) -> str:
        """Return the precision."""

    def encode_documents(self, texts: Sequence[str], rows: Sequence[TokenRows] | None = None) -> list[Matrix]:
        """Return a matrix `[t, d]` per text. rows: the tokenized texts, if they have been tokenized already."""
        ...


class VectorCache:
    """A cache of vectors of one dim, for one process at a time."""

    def __init__(self, folder: Path, dim: int) -> None:
        """Open or create the cache.

        Raises:
            ColbertVespaError: if another process has it open, its dim differs, or the disk refuses.
        """
        self.dim = dim
        self._row_bytes = 4 * dim
        self._folder = folder
        self._places: dict[bytes, tuple[int, int, int]] = {}  # first row, rows, checksum
        self._unwritten: list[bytes] = []  # records of rows that are not durable yet
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._rows_file = (folder / "vectors-2.f32").open("a+b")
            self._entries_file = (folder / "entries-2.bin").open("a+b")
        except OSError as error:
            raise ColbertVespaError(f"cannot use vector cache {folder}: {error}") from None
        try:
            fcntl.flock(self._entries_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._load()
        except BlockingIOError:
            self._close_files()
            raise ColbertVespaError(f"vector cache {folder} is in use by another process; choose another folder") from None
        except BaseException:
            self._close_files()
            raise

    def _load(self) -> None:
        head = _record(MAGIC, 0, self.dim, 0)
        self._entries_file.seek(0)
        data = self._entries_file.read()
        if not head.startswith(data[: len(head)]):
            if data.startswith(MAGIC):
                raise ColbertVespaError(
                    f"vector cache {self._folder} is damaged or belongs to another model; choose another folder"
                )
            raise ColbertVespaError(f"{self._folder / 'entries-2.bin'} is not a vector cache; choose another folder")
        there = self._rows_file.seek(0, 2) // self._row_bytes
        self._row = 0
        for place in range(len(head), len(data) - len(head) + 1, len(head)):
            key, first, rows, checksum, own, _ = _RECORD.unpack_from(data, place)
            if own == zlib.crc32(data[place : place + _CHECKED]) and first + rows <= there:
                self._places[key] = first, rows, checksum
                self._row = max(self._row, first + rows)
        self._rows_file.truncate(self._row * self._row_bytes)
        self._entries_file.truncate(len(data) // len(head) * len(head))
        if len(data) < len(head):
            self._unwritten.append(head)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> Matrix | None:
        """Return the vectors `[t, d]` stored under `key` (16 bytes), or None."""
        place = self._places.get(key)
        if place is None:
            return None
        self._rows_file.flush()
        first, rows, checksum = place
        data = os.pread(self._rows_file.fileno(), rows * self._row_bytes, first * self._row_bytes)
        if len(data) != rows * self._row_bytes or zlib.crc32(data) != checksum:
            del self._places[key]
            return None
        return np.frombuffer(data, np.float32).reshape(rows, self.dim)

    def put(self, key: bytes, vectors: Matrix) -> None:
        """Store vectors; they survive a crash after `flush`."""
        if key in self._places:
            return
        data = np.ascontiguousarray(vectors, np.float32).tobytes()
        self._rows_file.write(data)
        self._places[key] = self._row, len(vectors), zlib.crc32(data)
        self._unwritten.append(_record(key, *self._places[key]))
        self._row += len(vectors)

    def flush(self) -> None:
        """Make everything put so far durable."""
        if self._unwritten:
            self._rows_file.flush()
            os.fsync(self._rows_file.fileno())
            self._entries_file.write(b"".join(self._unwritten))
            self._unwritten.clear()
            self._entries_file.flush()
            os.fsync(self._entries_file.fileno())

    def close(self) -> None:
        """Flush and close the files."""
        try:
            self.flush()
        finally:
            self._close_files()

    def _close_files(self) -> None:
        self._rows_file.close()
        self._entries_file.close()


def _record(key: bytes, first: int, rows: int, checksum: int) -> bytes:
    record = _RECORD.pack(key, first, rows, checksum, 0, 0)
    return record[:_CHECKED] + struct.pack("<II", zlib.crc32(record[:_CHECKED]), 0)


class CachedEncoder:
    """An encoder that looks into a VectorCache first. The key covers model, rules and text."""

    def __init__(self, encoder: DocumentEncoder, cache: VectorCache) -> None:
        self._encoder = encoder
        self._cache = cache
        manifest = encoder.bundle.manifest
        model = manifest.files[manifest.models[encoder.precision]].sha256
        tokenizer = manifest.files["tokenizer.json"].sha256
        rules = repr(
            (model, tokenizer, manifest.rules, manifest.document, manifest.strip, manifest.lower_case, manifest.pooling)
        )
        self._salt = hashlib.sha256(rules.encode()).digest()

    @property
    def bundle(self) -> Bundle:
        """Return the bundle."""
        return self._encoder.bundle

    @property
    def precision(self) -> str:
        """Return the precision."""
        return self._encoder.precision

    def encode_documents(self, texts: Sequence[str], rows: Sequence[TokenRows] | None = None) -> list[Matrix]:
        """Return a matrix `[t, d]` per text, from the cache if it has it."""
        keys = [hashlib.sha256(self._salt + text.encode()).digest()[:16] for text in texts]
        found = [self._cache.get(key) for key in keys]
        missing = [place for place, vectors in enumerate(found) if vectors is None]
        missing_rows = None if rows is None else [rows[place] for place in missing]
        encoded = self._encoder.encode_documents([texts[place] for place in missing], missing_rows) if missing else []
        for place, vectors in zip(missing, encoded, strict=True):
            self._cache.put(keys[place], vectors)
            found[place] = vectors
        self._cache.flush()
        return [vectors for vectors in found if vectors is not None]
