"""What an encoding of token vectors as one vector is."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix, Vector

__all__ = ["LARGEST_CELL", "TINY", "FitReport", "OneVector"]

LARGEST_CELL = 127  # of int8
TINY = 1e-20  # a vector whose largest number is below this becomes int8 zeros
FitReport = Callable[[int, int], None]  # steps done, and steps in all


class OneVector(abc.ABC):
    """A passage and a query as one vector each, whose inner product orders passages roughly as MaxSim does.

    Attributes:
        name: its name in settings, manifests and `ENCODINGS`.
        about: what the vector is, in a few words.
        normalized: all vectors have length 1, so that the nearest by angle are the best; otherwise their lengths count.
        fitted: its parameters are trained on a sample, and stored as the codebook of that name in a bundle.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    normalized: ClassVar[bool]
    fitted: ClassVar[bool] = True

    @classmethod
    @abc.abstractmethod
    def fit(cls, sample: Sequence[Matrix], *, dim: int = 0, seed: int = 0, progress: FitReport | None = None) -> OneVector:
        """Fit the encoding to some passages.

        Args:
            sample: token vectors `[t, d]` of each passage.
            dim: dimensions of the one vector, if they can be chosen.
            seed: seed of the random choices.
            progress: called with the progress.

        Raises:
            BundleError: if the sample is too small for `dim`, or all its passages are alike.
        """

    @classmethod
    @abc.abstractmethod
    def load(cls, path: str | Path) -> OneVector:
        """Read a file that `save` has written.

        Raises:
            BundleError: if the file is missing or damaged; the message names it.
        """

    @property
    @abc.abstractmethod
    def rows_dim(self) -> int:
        """Dimensions of the token vectors."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Dimensions of the one vector."""

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Identity of the content."""

    @property
    def unit(self) -> float:
        """The step of an int8 cell, where lengths count: cells beyond 127 steps are cut off."""
        return 1.0

    def cells(self, vectors: NDArray[np.float32]) -> NDArray[np.int8]:
        """Return vectors whose lengths count as int8 cells, rounded to steps of `unit` and cut off at 127."""
        steps: NDArray[np.float32] = np.rint(vectors / np.float32(self.unit))
        return np.clip(steps, -LARGEST_CELL, LARGEST_CELL).astype(np.int8)

    @abc.abstractmethod
    def passages(self, rows: Sequence[Matrix]) -> Matrix:
        """Return the vectors `[n, dim]` of n passages from their token vectors `[t, rows_dim]`; t may be 0."""

    @abc.abstractmethod
    def query(self, rows: Matrix) -> Vector:
        """Return the vector `[dim]` of a query from its rows `[q, rows_dim]`."""

    def passage(self, rows: Matrix) -> Vector:
        """Return the vector `[dim]` of one passage from its token vectors `[t, rows_dim]`."""
        vector: Vector = self.passages([rows])[0]
        return vector

    @abc.abstractmethod
    def save(self, path: str | Path) -> None:
        """Write the fitted parameters to a file."""
