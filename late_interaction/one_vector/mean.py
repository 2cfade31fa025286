"""Encoding `mean`: the normalised mean of the token vectors, of passages and queries alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from late_interaction.array_types import Matrix, Vector
from late_interaction.errors import BundleError
from late_interaction.one_vector.base import FitReport, OneVector

__all__ = ["MeanVector"]


@dataclass(frozen=True)
class MeanVector(OneVector):
    """The encoding `mean`; `rows_dim` is the dimension of the token vectors and of their mean."""

    name = "mean"
    about = "the mean of a passage's token vectors"
    normalized = True
    fitted = False
    rows_dim: int = 1

    @classmethod
    def fit(cls, sample: Sequence[Matrix], *, dim: int = 0, seed: int = 0, progress: FitReport | None = None) -> MeanVector:
        """Return the encoding for the token vectors' dimensions; nothing is fitted."""
        if not sample:
            raise BundleError("the sample has no passages")
        return cls(sample[0].shape[1])

    @classmethod
    def load(cls, path: str | Path) -> MeanVector:
        """Raise BundleError: the encoding has no parameters."""
        raise BundleError(f"{path}: encoding mean has no parameters")

    def save(self, path: str | Path) -> None:
        """Raise BundleError: the encoding has no parameters."""
        raise BundleError(f"{path}: encoding mean has no parameters")

    @property
    def sha256(self) -> str:
        """Return the identity of the parameters."""
        return f"mean {self.rows_dim}"

    @property
    def dim(self) -> int:
        """Return the dimensions of the vector: those of the rows."""
        return self.rows_dim

    def passages(self, rows: Sequence[Matrix]) -> Matrix:
        """Return one vector `[n, dim]` per passage from its rows."""
        means: Matrix = np.zeros((len(rows), self.dim), np.float32)
        for place, own in enumerate(rows):
            means[place] = self.query(own)
        return means

    def query(self, rows: Matrix) -> Vector:
        """Return the mean direction of a query's rows; without a direction the first axis, because cosine needs one."""
        mean: Vector = np.asarray(rows, np.float32).sum(axis=0) / max(1, len(rows))
        length = float(np.linalg.norm(mean))
        if length > 0:
            return np.asarray(mean / length, np.float32)
        axis = np.zeros_like(mean)
        axis[0] = 1
        return axis
