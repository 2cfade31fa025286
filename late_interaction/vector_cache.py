"""Token vectors kept on disk by content, so that the same text is not encoded twice.

    FOLDER/vectors.f32     rows of all entries, one after the other, float32
    FOLDER/entries.bin     24-byte records: first 16 bytes of the key's sha256, row count uint64

Both files only grow; an entry counts once its record is complete and its rows are there, so a torn tail is cut off.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from late_interaction.bundle import Bundle
from late_interaction.errors import ColbertVespaError
from late_interaction.tokenizing import TokenRows

__all__ = ["CachedEncoder", "DocumentEncoder", "VectorCache"]

Matrix = NDArray[np.float32]
_RECORD = np.dtype([("key", "V16"), ("rows", "<u8")])


class DocumentEncoder(Protocol):
    """What turns texts into token vectors `[t, d]`; `Encoder` and `CachedEncoder` are."""

    @property
    def bundle(self) -> Bundle: ...
    @property
    def precision(self) -> str: ...
    def encode_documents(self, texts: Sequence[str], rows: Sequence[TokenRows] | None = None) -> list[Matrix]:
        """rows: of the texts, where they have been tokenized already."""
        ...


class VectorCache:
    """One process at a time; vectors of one dim."""

    def __init__(self, folder: Path, dim: int) -> None:
        """Raises: ColbertVespaError where another process has the cache open."""
        folder.mkdir(parents=True, exist_ok=True)
        self.dim = dim
        self._rows_file = (folder / "vectors.f32").open("a+b")
        self._entries_file = (folder / "entries.bin").open("a+b")
        try:
            fcntl.flock(self._entries_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise ColbertVespaError(f"vector cache {folder} is in use by another process") from None
        self._places: dict[bytes, tuple[int, int]] = {}
        self._row_bytes = 4 * dim
        self._load()

    def _load(self) -> None:
        self._entries_file.seek(0)
        data = self._entries_file.read()
        there = self._rows_file.seek(0, 2) // self._row_bytes
        records = np.frombuffer(data[: len(data) // _RECORD.itemsize * _RECORD.itemsize], _RECORD)
        row = 0
        kept = 0
        for key, rows in zip(records["key"], records["rows"].tolist(), strict=True):
            if row + rows > there:
                break
            self._places[bytes(key)] = (row, rows)
            row += rows
            kept += 1
        self._rows_file.truncate(row * self._row_bytes)
        self._entries_file.truncate(kept * _RECORD.itemsize)
        self._row = row

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: bytes) -> Matrix | None:
        """Vectors `[t, d]` stored under `key` (16 bytes), or None."""
        place = self._places.get(key)
        if place is None:
            return None
        self._rows_file.flush()
        first, rows = place
        self._rows_file.seek(first * self._row_bytes)
        data = self._rows_file.read(rows * self._row_bytes)
        return np.frombuffer(data, np.float32).reshape(rows, self.dim)

    def put(self, key: bytes, vectors: Matrix) -> None:
        if key in self._places:
            return
        self._rows_file.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        self._places[key] = (self._row, len(vectors))
        self._row += len(vectors)
        self._rows_file.flush()
        record = np.zeros(1, _RECORD)
        record["key"] = np.void(key)
        record["rows"] = len(vectors)
        self._entries_file.write(record.tobytes())

    def close(self) -> None:
        self._rows_file.close()
        self._entries_file.close()


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
        return self._encoder.bundle

    @property
    def precision(self) -> str:
        return self._encoder.precision

    def encode_documents(self, texts: Sequence[str], rows: Sequence[TokenRows] | None = None) -> list[Matrix]:
        keys = [hashlib.sha256(self._salt + text.encode()).digest()[:16] for text in texts]
        found = [self._cache.get(key) for key in keys]
        missing = [place for place, vectors in enumerate(found) if vectors is None]
        missing_rows = None if rows is None else [rows[place] for place in missing]
        encoded = self._encoder.encode_documents([texts[place] for place in missing], missing_rows) if missing else []
        for place, vectors in zip(missing, encoded, strict=True):
            self._cache.put(keys[place], vectors)
            found[place] = vectors
        return [vectors for vectors in found if vectors is not None]
