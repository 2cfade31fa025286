"""Sixteen-bit copies of query rows, in the order in which the kernels read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix
from late_interaction.simd import CELLS, GROUP

__all__ = ["Query16", "padded_width", "sixteen_bits"]

LARGEST = 32_767


def padded_width(dim: int) -> int:
    """Return the cells of a row, rounded up to whole registers."""
    return -(-dim // CELLS) * CELLS


def sixteen_bits(rows: Matrix, scale: float, width: int) -> NDArray[np.int16]:
    """Return `rows * scale` rounded, `[n, width]`; cells past their own width are 0."""
    out = np.zeros((len(rows), width), np.int16)
    np.clip(np.rint(rows * np.float32(scale)), -LARGEST, LARGEST, out=out[:, : rows.shape[1]], casting="unsafe")
    return out


class Query16:
    """`Q [q, d]` scaled by its longest row, so that no sum of products with a vector of length 2^15 exceeds 31 bits.

    Attributes:
        error: sum of the rows' rounding errors.
        length: sum of the rows' lengths.
    """

    def __init__(self, Q: Matrix) -> None:
        self.rows = len(Q)
        self.groups = max(1, -(-len(Q) // GROUP))
        longest = float(np.linalg.norm(Q, axis=1).max(initial=0))
        self.unit = max(longest, 1e-12) / LARGEST
        self._rounded = sixteen_bits(Q, 1 / self.unit, Q.shape[1])
        self.error = float(np.linalg.norm(Q - self._rounded * np.float64(self.unit), axis=1).sum())
        self.length = float(np.linalg.norm(Q, axis=1).sum(dtype=np.float64))
        self._rounding = (Q.shape[1] + len(Q) + 16) * 2.0**-23
        self._by_width: dict[int, NDArray[np.int16]] = {}

    def bound(self, sizes: Matrix, errors: Matrix) -> Matrix:
        """Return how far scores `[p]` may be off.

        The bound holds if no vector as read is longer than `sizes [p]` or off by more than `errors [p]` (scoring.py).
        """
        found: Matrix = self.error * sizes + self.length * (errors + self._rounding * sizes)
        return found

    def padded(self, width: int) -> NDArray[np.int16]:
        """Return `[groups, width / 2, 16, 2]`: for each pair of dimensions the sixteen rows of a group; missing rows are 0."""
        if (known := self._by_width.get(width)) is not None:
            return known
        rows = np.zeros((self.groups * GROUP, width), np.int16)
        rows[: self.rows, : self._rounded.shape[1]] = self._rounded
        made = np.ascontiguousarray(rows.reshape(self.groups, GROUP, width // 2, 2).transpose(0, 2, 1, 3))
        self._by_width[width] = made
        return made
