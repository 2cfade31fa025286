"""What an encoding of token vectors as one vector is."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix, Vector

__all__ = ["FitReport", "OneVector"]

LARGEST_CELL = 127  # of int8
FitReport = Callable[[int, int], None]  # steps done, and steps in all


class OneVector(abc.ABC):
    """A passage and a query as one vector each, whose inner product orders passages roughly as MaxSim does.

    normalized: all vectors have length 1, so that the nearest by angle are the best; otherwise their lengths count. fitted: its
    parameters are trained on a sample, and are the codebook of that name in a bundle. sha256: of the parameters.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    normalized: ClassVar[bool]
    fitted: ClassVar[bool] = True

    @classmethod
    @abc.abstractmethod
    def fit(cls, sample: Sequence[Matrix], *, dim: int = 0, seed: int = 0, progress: FitReport | None = None) -> OneVector:
        """Fits to `sample`, the token vectors `[t, d]` of some passages. dim: of the one vector, where it can be chosen.

        Raises: BundleError where the sample is too small for `dim`, or its passages are all alike.
        """

    @classmethod
    @abc.abstractmethod
    def load(cls, path: str | Path) -> OneVector:
        """What `save` has written. Raises: BundleError naming the file and what is wrong with it."""

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
        """`[n, dim]` of the token vectors `[t, rows_dim]` of n passages, some of which may have none."""

    @abc.abstractmethod
    def query(self, rows: Matrix) -> Vector:
        """`[dim]` of the rows `[q, rows_dim]` of a query."""

    def passage(self, rows: Matrix) -> Vector:
        """`[dim]` of the token vectors `[t, rows_dim]` of one passage."""
        vector: Vector = self.passages([rows])[0]
        return vector

    @abc.abstractmethod
    def save(self, path: str | Path) -> None:
        """Writes what was fitted."""
