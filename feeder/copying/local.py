"""A local index, with or without shards, as a place with stored documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feeder.copying.source import END, Batch, stored_document
from feeder.targets import EncodedDocument
from feeder.targets.local import kept_locally
from late_interaction.array_types import Matrix, Vector
from late_interaction.bundle import Bundle
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage, open_index
from late_interaction.plaid.store.snapshot import Living, Snapshot
from vespa_app.codecs import Packed

__all__ = ["LocalSource"]

BATCH_DOCUMENTS = 1024
BATCH_VECTORS = 1 << 16  # 32 MiB at 128 dimensions


@dataclass(frozen=True)
class _LivingSegment:
    """A segment and its version."""

    snapshot: Snapshot
    living: Living


class LocalSource:
    """One version of the index. A whole document comes at the place of its first passage."""

    counted = True

    def __init__(self, path: Path) -> None:
        """Open the newest version.

        Raises:
            LocalIndexError: if there is no index, or one of its shards cannot be read.
        """
        index = open_index(path).pinned()
        if index.missing:
            raise LocalIndexError(f"{path} cannot be copied: {'; '.join(index.missing.values())}")
        self.name, self.place, self._index = str(path), str(path.resolve()), index
        self.version = repr(index.current)
        readers = index.readers().values()
        self._parts = [_LivingSegment(reader.snapshot, living) for reader in readers for living in reader.snapshot.living]
        self.codebook = index.codebook if index.codec == "residual" and not index.refine else None
        self.kept = kept_locally(index, self.codebook)

    @property
    def bundle(self) -> Bundle:
        """Return the index's bundle."""
        return self._index.bundle

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self._index.schema

    @property
    def storage(self) -> Storage:
        """Return the storage of the index."""
        return Storage(self._index.codec, self._index.bits, self._index.refine)

    def size(self) -> int:
        """Return the number of passages."""
        return self._index.passages

    def batches(self, resume: str) -> Iterator[Batch]:
        """Yield the documents; places are `segment:row`."""
        documents: list[EncodedDocument] = []
        rows = 0
        for part, row in self._places(resume):
            found = self._document(part, row)
            if found is not None:
                documents.append(found)
                rows += sum(len(vectors) for vectors in found.vectors)
            if len(documents) == BATCH_DOCUMENTS or rows >= BATCH_VECTORS:
                yield Batch(documents, f"{part}:{row + 1}")
                documents, rows = [], 0
        if documents:
            yield Batch(documents, END)

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def _places(self, resume: str) -> Iterator[tuple[int, int]]:
        if resume == END:
            return
        first, start = (int(number) for number in resume.split(":")) if resume else (0, 0)
        for number in range(first, len(self._parts)):
            rows = np.flatnonzero(self._parts[number].living.mask)
            for row in rows[rows >= (start if number == first else 0)].tolist():
                yield number, row

    def _document(self, part: int, row: int) -> EncodedDocument | None:
        """Return the document of the passage there; None if another of its passages comes earlier."""
        document_id = self._parts[part].living.segment.documents[row]
        places: list[tuple[int, int]] = []
        for number, other in enumerate(self._parts):
            rows = [r for r in other.living.segment.find_document(document_id) if other.living.mask[r]]
            if rows and (number, rows[0]) < (part, row):
                return None
            places += [(number, r) for r in rows]
        own = [(self._parts[number], r, self._parts[number].living.segment.passage(r)) for number, r in places]
        own.sort(key=lambda item: _number(item[2]))  # stable: the others keep their order
        vectors = [_rows(found, r) for found, r, _ in own]
        packed = [_packed(found, r) for found, r, _ in own] if self.codebook is not None else []
        dense = [_dense(found, r, self._index.dense) for found, r, _ in own] if self._index.dense else []
        return stored_document([passage for _, _, passage in own], vectors, packed, counted=True, dense=dense)


def _number(passage: Passage) -> int:
    """Return the n of `id#n`; 0 if the id has another form."""
    start = Passage.id_of(passage.document_id, 0)[:-1]
    rest = passage.id.removeprefix(start)
    return int(rest) if passage.id.startswith(start) and rest.isdecimal() else 0


def _rows(part: _LivingSegment, row: int) -> Matrix:
    start, stop = part.living.segment.offsets[row : row + 2].tolist()
    if start == stop:
        return np.zeros((0, part.snapshot.version.dim), np.float32)
    return part.snapshot.best_vectors(part.living, slice(start, stop))


def _dense(part: _LivingSegment, row: int, models: Iterable[str]) -> Mapping[str, Vector]:
    return {name: part.living.segment.dense[name].vectors(slice(row, row + 1))[0] for name in models}


def _packed(part: _LivingSegment, row: int) -> Packed:
    segment = part.living.segment
    start, stop = segment.offsets[row : row + 2].tolist()
    return segment.codes[start:stop].astype(np.int32), np.array(segment.payload[start:stop], np.uint8)
