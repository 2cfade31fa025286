"""Dense vectors of a segment: one per passage for each dense model of the index, beside its token vectors.

dense-NAME.npy [n, d]       int8: each vector times 127 / its largest cell, rounded
dense-NAME.scales.npy [n]   float32: restores the length that a vector had
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import F32, I8, I32, Mask, Matrix, Places, Vector
from late_interaction.bundle import FileEntry
from late_interaction.errors import LocalIndexError
from late_interaction.one_vector.base import LARGEST_CELL, TINY
from late_interaction.plaid.store import nearest
from late_interaction.plaid.store.linking import can_link, row_files, write_links
from late_interaction.plaid.store.storage import ArrayWriter, open_array
from late_interaction.plaid.types import DenseForm

__all__ = ["DenseRows", "DenseWriter", "dense_stem", "joined", "lacks_links", "open_dense", "open_rows", "parted"]

DenseForms = Mapping[str, DenseForm]


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Vectors of one model: `rows [n, d]` times `scales [n]`."""

    rows: I8
    scales: F32
    links: I32 | None = None

    def vectors(self, places: Places | slice) -> Matrix:
        """Return vectors `[p, d]` at `places [p]`."""
        found: Matrix = self.rows[places].astype(np.float32) * self.scales[places][:, None]
        return found

    def scores(self, vector: Vector, places: Places) -> Vector:
        """Return inner products `[p]` of `vector [d]` with the vectors at `places`, all of which exist."""
        out: Vector = np.empty(len(places), np.float32)
        nearest.dot_bytes(self.rows, self.scales, places, vector, out)
        return out

    def nearest(self, vector: Vector, k: int, selected: Mask, *, exact: bool = False) -> tuple[Places, Vector]:
        """Return the nearest selected rows and their products, as `nearest.nearest` does."""
        return nearest.nearest(self.rows, self.scales, self.links, vector, k, selected, exact=exact)


class DenseWriter:
    """Writes the files of one model."""

    def __init__(self, folder: Path, stem: str, dim: int) -> None:
        self._folder, self._stem, self._names = folder, stem, row_files(stem)
        self._rows = ArrayWriter(folder / self._names[0], "|i1", (dim,))
        self._scales = ArrayWriter(folder / self._names[1], "<f4")
        self._count = 0

    def append(self, vectors: Matrix) -> None:
        """Append vectors `[n, d]`."""
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=TINY)
        rows = np.rint(vectors * (LARGEST_CELL / largest)).astype(np.int8)
        lengths = np.maximum(np.linalg.norm(rows.astype(np.float32), axis=1), 1)
        self.append_rows(DenseRows(rows, (np.linalg.norm(vectors, axis=1) / lengths).astype(np.float32)), slice(None))

    def append_rows(self, stored: DenseRows, places: slice) -> None:
        """Copy rows as another segment stores them."""
        scales = stored.scales[places]
        self._rows.append(stored.rows[places])
        self._scales.append(scales)
        self._count += len(scales)

    def close(self) -> dict[str, FileEntry]:
        """Finish the files and return their sizes and checksums."""
        files = dict(zip(self._names, (self._rows.close(), self._scales.close()), strict=False))
        if can_link() and lacks_links(files, self._stem, self._count):
            files |= write_links(self._folder / self._names[0])
        return files

    def abandon(self) -> None:
        """Close the files without finishing them."""
        self._rows.abandon()
        self._scales.abandon()


def dense_stem(name: str) -> str:
    """Return the prefix of the names of a model's files in a segment's folder."""
    return f"dense-{name}"


def lacks_links(files: Mapping[str, FileEntry], stem: str, count: int) -> bool:
    """Tell whether a segment with those files has enough rows for a graph, but no graph."""
    return count >= nearest.LINKED_FROM and row_files(stem)[2] not in files


def open_rows(folder: Path, stem: str, files: Mapping[str, FileEntry], count: int, dim: int) -> DenseRows:
    """Open the rows of a model in a segment's folder.

    Raises:
        LocalIndexError: if a file does not fit; the message names it.
        KeyError: if a file is not listed.
    """
    rows, scales, links = row_files(stem)
    opened = DenseRows(
        open_array(folder, rows, files[rows], "|i1", 2, bulk=True),
        open_array(folder, scales, files[scales], "<f4"),
        open_array(folder, links, files[links], "<i4", 2, bulk=True) if links in files else None,
    )
    shapes: Sequence[tuple[str, NDArray[Any] | None, tuple[int, ...]]] = (
        (rows, opened.rows, (count, dim)), (scales, opened.scales, (count,)), (links, opened.links, (count, nearest.LINKS)),
    )  # fmt: skip
    for file, array, shape in shapes:
        if array is not None and array.shape != shape:
            raise LocalIndexError(f"{folder} is damaged: {file} has shape {array.shape}, not {shape}")
    return opened


def open_dense(folder: Path, files: Mapping[str, FileEntry], forms: DenseForms, passages: int) -> dict[str, DenseRows]:
    """Open the files of all models.

    Raises:
        LocalIndexError: if a file does not fit; the message names it.
        KeyError: if a file is not listed.
    """
    return {name: open_rows(folder, dense_stem(name), files, passages, form.dim) for name, form in forms.items()}


def joined(vectors: Mapping[str, Vector], forms: DenseForms) -> Vector:
    """Concatenate the vectors of all models, in the order of `forms`."""
    return np.concatenate([np.zeros(0, np.float32), *(vectors[name] for name in forms)])


def parted(vectors: Matrix, forms: DenseForms) -> dict[str, Matrix]:
    """Split rows made by `joined` into one matrix per model."""
    edges = np.cumsum([form.dim for form in forms.values()])[:-1]
    return dict(zip(forms, np.split(vectors, edges, axis=-1), strict=True)) if forms else {}
