"""One immutable segment: passages in order of insertion, their codes and residuals, and the tables to find them.

offsets [n + 1]            rows of passage p are offsets[p] .. offsets[p + 1]
codes [T], payload [T, b]  what the codec stores of each vector
refine [T, d]              int8, only if the index keeps it: the vector's direction, for the last step of a search
ivf_offsets [C + 1], ivf_passages    for every centroid the passages that have it, ascending, each once
ids, documents, titles, texts, digests    texts, one per passage
*_hashes (ascending), *_rows         where an id is
dense-*                    of the dense models (dense.py)
words_*                    for BM25 (words.py); missing if an earlier release wrote the segment
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Vector
from late_interaction.documents import Passage, passage_text
from late_interaction.errors import LocalIndexError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.store.columns import Column, open_columns
from late_interaction.plaid.store.dense import DenseRows, open_dense
from late_interaction.plaid.store.storage import Strings, open_array, string_hash
from late_interaction.plaid.store.versions import SegmentEntry
from late_interaction.plaid.store.words import SegmentWords, word_run
from late_interaction.plaid.types import DenseForm

__all__ = ["PayloadForm", "Segment", "codes_dtype"]

CODE_DTYPES = ("<u2", "<i4")


def codes_dtype(centroids: int) -> str:
    """Return the type of codes: two bytes if they suffice."""
    return CODE_DTYPES[0] if centroids <= 1 << 16 else CODE_DTYPES[1]


@dataclass(frozen=True, slots=True)
class PayloadForm:
    """The form of a segment's rows.

    Attributes:
        dtype: type of `payload`.
        width: width of a row of `payload`.
        refine: width of a row of `refine`, or 0.
        dense: models with a vector of each passage.
    """

    dtype: str
    width: int
    refine: int
    dense: Mapping[str, DenseForm] = field(default_factory=dict)


class Segment:
    """An opened segment. All files are mapped, so it stays readable after a commit has removed it."""

    def __init__(self, root: Path, entry: SegmentEntry, schema: MetadataSchema, form: PayloadForm) -> None:
        """Map the files.

        Raises:
            LocalIndexError: if a file is missing, has another size, or does not fit the others; the message names it.
        """
        self.entry = entry
        folder = root / "segments" / entry.name
        self._folder = folder
        files = entry.files
        try:
            self.offsets: NDArray[np.int64] = self._open("offsets", "<i8")
            self.codes: NDArray[Any] = open_array(folder, "codes.npy", files["codes.npy"], CODE_DTYPES, bulk=True)
            self.payload: NDArray[Any] = open_array(folder, "payload.npy", files["payload.npy"], form.dtype, 2, bulk=True)
            self.refine: NDArray[np.int8] | None = None
            if form.refine:
                self.refine = open_array(folder, "refine.npy", files["refine.npy"], "|i1", 2, bulk=True)
            self.ivf_offsets: NDArray[np.int64] = self._open("ivf_offsets", "<i8")
            self.ivf_passages: NDArray[np.int32] = self._open("ivf_passages", "<i4", bulk=True)
            self.ids, self.documents = Strings(folder, "ids", files), Strings(folder, "documents", files)
            self.titles, self.texts = Strings(folder, "titles", files), Strings(folder, "texts", files)
            self.digests = Strings(folder, "digests", files)
            self.id_hashes: NDArray[np.uint64] = self._open("ids_hashes", "<u8")
            self.id_rows: NDArray[np.int32] = self._open("ids_rows", "<i4")
            self.document_hashes: NDArray[np.uint64] = self._open("documents_hashes", "<u8")
            self.document_rows: NDArray[np.int32] = self._open("documents_rows", "<i4")
            self._written_words = None if "words_hashes.npy" not in files else self._open_words()
            self.dense: dict[str, DenseRows] = open_dense(folder, files, form.dense, entry.passages)
            self.columns: dict[str, Column] = open_columns(folder, schema, files, entry.passages)
        except KeyError as error:
            raise LocalIndexError(f"{folder} is damaged: its version does not list {error}") from None
        self._check(form)

    def _open(self, name: str, dtype: str, *, bulk: bool = False) -> NDArray[Any]:
        return open_array(self._folder, f"{name}.npy", self.entry.files[f"{name}.npy"], dtype, bulk=bulk)

    def _open_words(self) -> SegmentWords:
        hashes, starts = self._open("words_hashes", "<u8"), self._open("words_starts", "<i8")
        postings = open_array(self._folder, "words_postings.npy", self.entry.files["words_postings.npy"], "<i4", 2, bulk=True)
        found = SegmentWords(hashes, starts, postings, self._open("words_lengths", "<i4"), str(self._folder))
        found.check(self.entry.passages)
        return found

    @functools.cached_property
    def words(self) -> SegmentWords:
        """Return the words for BM25, counted now if the segment was written without.

        Raises:
            LocalIndexError: if a text is damaged.
        """
        if self._written_words is not None:
            return self._written_words
        return word_run([passage_text(title, text) for title, text in zip(self.titles, self.texts, strict=True)])

    def _check(self, form: PayloadForm) -> None:
        n, rows = self.entry.passages, self.entry.token_vectors
        expected: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "offsets": (self.offsets, (n + 1,)),
            "codes": (self.codes, (rows,)),
            "payload": (self.payload, (rows, form.width)),
            "ids.offsets": (self.ids.offsets, (n + 1,)),
            "documents.offsets": (self.documents.offsets, (n + 1,)),
            "titles.offsets": (self.titles.offsets, (n + 1,)),
            "texts.offsets": (self.texts.offsets, (n + 1,)),
            "digests.offsets": (self.digests.offsets, (n + 1,)),
            "ids_hashes": (self.id_hashes, (n,)),
            "ids_rows": (self.id_rows, (n,)),
            "documents_hashes": (self.document_hashes, (n,)),
            "documents_rows": (self.document_rows, (n,)),
        }
        if self.refine is not None:
            expected["refine"] = (self.refine, (rows, form.refine))
        for name, (array, shape) in expected.items():
            if array.shape != shape:
                raise LocalIndexError(f"{self._folder} is damaged: {name}.npy has shape {array.shape}, not {shape}")
        for name, offsets, end in (
            ("offsets", self.offsets, rows),
            ("ivf_offsets", self.ivf_offsets, len(self.ivf_passages)),
        ):
            if not len(offsets) or offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
                raise LocalIndexError(f"{self._folder} is damaged: {name}.npy does not ascend from 0 to {end}")

    @property
    def passages(self) -> int:
        """Return the number of passages."""
        return self.entry.passages

    def lengths(self) -> NDArray[np.int64]:
        """Return the rows of every passage `[n]`."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the passages `rows [n]`."""
        lengths: NDArray[np.int64] = self.offsets[rows + 1] - self.offsets[rows]
        return lengths

    def find(self, passage_id: str) -> int | None:
        """Return the row of the passage of that id, deleted or not; ids are unique within a segment."""
        for row in self._rows_of(string_hash(passage_id), self.id_hashes, self.id_rows):
            if self.ids[row] == passage_id:
                return row
        return None

    def find_document(self, document_id: str) -> list[int]:
        """Return the rows of all passages of that document, ascending."""
        rows = self._rows_of(string_hash(document_id), self.document_hashes, self.document_rows)
        return sorted(row for row in rows if self.documents[row] == document_id)

    @staticmethod
    def _rows_of(key: int, hashes: NDArray[np.uint64], rows: NDArray[np.int32]) -> list[int]:
        wanted = np.uint64(key)
        first, last = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
        found: list[int] = rows[first:last].tolist()
        return found

    def dense_of(self, row: int) -> Vector:
        """Return a passage's vectors of all dense models, one after the other."""
        parts = [dense.vectors(slice(row, row + 1))[0] for dense in self.dense.values()]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def passage(self, row: int) -> Passage:
        """Return the passage at a row."""
        metadata = {name: value for name, column in self.columns.items() if (value := column.value(row)) is not None}
        texts = (self.ids[row], self.documents[row], self.titles[row], self.texts[row])
        return Passage(*texts, metadata, self.digests[row])
