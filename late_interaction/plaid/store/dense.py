"""Dense vectors of a segment: one of each passage for each dense model of the index, beside its token vectors.

dense-NAME.npy [n, d]       int8: each vector times 127 / its largest cell, rounded
dense-NAME.scales.npy [n]   float32: what gives a row the length that its vector had
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import F32, I8, Matrix, Places, Vector
from late_interaction.bundle import FileEntry
from late_interaction.errors import LocalIndexError
from late_interaction.plaid.store import kernels
from late_interaction.plaid.store.storage import ArrayWriter, open_array
from late_interaction.plaid.types import DenseForm

__all__ = ["DenseRows", "DenseWriter", "dense_files", "joined", "open_dense", "parted"]

DenseForms = Mapping[str, DenseForm]
TINY = 1e-20  # largest cell of a vector that becomes zeros


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Of one model: `rows [n, d]` times `scales [n]`."""

    rows: I8
    scales: F32

    def vectors(self, places: Places | slice) -> Matrix:
        """`[p, d]`."""
        found: Matrix = self.rows[places].astype(np.float32) * self.scales[places][:, None]
        return found

    def scores(self, vector: Vector, places: Places) -> Vector:
        """Inner products `[p]` of `vector [d]` with the vectors at `places`, which are all there."""
        out: Vector = np.empty(len(places), np.float32)
        kernels.dot_bytes(self.rows, self.scales, places, vector, out)
        return out


class DenseWriter:
    """Writes the files of one model."""

    def __init__(self, folder: Path, name: str, dim: int) -> None:
        self._names = dense_files(name)
        self._rows = ArrayWriter(folder / self._names[0], "|i1", (dim,))
        self._scales = ArrayWriter(folder / self._names[1], "<f4")

    def append(self, vectors: Matrix) -> None:
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=TINY)
        rows = np.rint(vectors * (127 / largest)).astype(np.int8)
        lengths = np.maximum(np.linalg.norm(rows.astype(np.float32), axis=1), 1)
        self.append_rows(DenseRows(rows, (np.linalg.norm(vectors, axis=1) / lengths).astype(np.float32)), slice(None))

    def append_rows(self, stored: DenseRows, places: slice) -> None:
        """As they are stored in another segment."""
        self._rows.append(stored.rows[places])
        self._scales.append(stored.scales[places])

    def close(self) -> dict[str, FileEntry]:
        return dict(zip(self._names, (self._rows.close(), self._scales.close()), strict=True))

    def abandon(self) -> None:
        self._rows.abandon()
        self._scales.abandon()


def dense_files(name: str) -> tuple[str, str]:
    """Names of the files of a model in a segment's folder: rows, scales."""
    return f"dense-{name}.npy", f"dense-{name}.scales.npy"


def open_dense(folder: Path, files: Mapping[str, FileEntry], forms: DenseForms, passages: int) -> dict[str, DenseRows]:
    """Raises: LocalIndexError naming the file that does not fit; KeyError on one that is not listed."""
    found = {}
    for name, form in forms.items():
        rows, scales = dense_files(name)
        opened = DenseRows(
            open_array(folder, rows, files[rows], "|i1", 2, bulk=True), open_array(folder, scales, files[scales], "<f4")
        )
        shapes: Sequence[tuple[str, NDArray[Any], tuple[int, ...]]] = (
            (rows, opened.rows, (passages, form.dim)), (scales, opened.scales, (passages,)),
        )  # fmt: skip
        for file, array, shape in shapes:
            if array.shape != shape:
                raise LocalIndexError(f"{folder} is damaged: {file} has shape {array.shape}, not {shape}")
        found[name] = opened
    return found


def joined(vectors: Mapping[str, Vector], forms: DenseForms) -> Vector:
    """The vectors of all models one after the other, in the order of `forms`."""
    return np.concatenate([np.zeros(0, np.float32), *(vectors[name] for name in forms)])


def parted(vectors: Matrix, forms: DenseForms) -> dict[str, Matrix]:
    """By model, of rows as `joined` makes them."""
    edges = np.cumsum([form.dim for form in forms.values()])[:-1]
    return dict(zip(forms, np.split(vectors, edges, axis=-1), strict=True)) if forms else {}
