"""Find the centroids nearest to rows, among a million, at a cost that hardly grows with their number.

Centroids are in groups. The groups with the nearest heads are found first (by groups of heads, if there are many), then the
nearest of their centroids.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I16, I32, I64, U8, U16, Matrix
from late_interaction.errors import MissingDependency

__all__ = ["LOOKED_AT", "MAX_GROUPS", "Groups", "Looked", "Lookup", "scaled_rows"]

LOOKED_AT = 12  # groups of a row, times the sixth root of how many there are (docs/performance/notes.md)
WANTED_OF = 4  # at least as many centroids in a row's groups, per centroid wanted
FLOOR_RANK, FLOOR_SHARE = 128, 512  # of a missing similarity: the 128th best of a row, or of few centroids one in 512
LARGEST = 32_767
MAX_GROUPS = 1 << 16  # centroids that two bytes can name
GROUP = 16  # query rows that a loop processes together
LEVELS = 255  # of a similarity in eight bits
NOWHERE = -(1 << 40)  # shift of a group that was not compared
MOST_TABLE = 1 << 29  # bytes of a table of similarities; a query with more rows is processed in parts


@dataclass(frozen=True, eq=False)
class Groups:
    """Centroids in groups of neighbours.

    Attributes:
        heads: `[G, d]` int8, all of one length.
        starts: group g is the rows `starts[g]` to `starts[g + 1]`.
        above: groups of the heads; None if all heads are compared.
    """

    heads: NDArray[np.int8]
    starts: I64
    above: Groups | None = None


@dataclass(frozen=True, eq=False)
class Looked:
    """What a lookup found, with the similarities of all centroids that it compared.

    Attributes:
        lists: as in `Lookup.lists`.
        similarities: as in `Lookup.lists`.
        gains: as in `Lookup.lists`.
        table: `[n, width]`, the similarities of all compared centroids to each query row, above its floor in steps of 1 /
            scale. Centroid c of group g is its row c + shifts[g]; row 0, of zeros, is for those that were not compared.
        shifts: by group, see `table`.
        group_of: the group of each centroid.
        seen: one bit per centroid, set if it was compared.
        scale: steps per unit of similarity.
        floor: sum of the floors of all rows.
    """

    lists: I32
    similarities: Matrix
    gains: Matrix
    table: U8
    shifts: I64
    group_of: U16
    seen: U8
    scale: float
    floor: float


class Lookup:
    """Finds the centroids nearest to rows.

    `cells [C, d]` are int8 or int16; their products with rows are multiplied by `unit`. Without groups, all centroids are
    compared.
    """

    def __init__(self, cells: NDArray[Any], unit: float, groups: Groups | None) -> None:
        self._cells, self._unit = cells, unit
        self._heads = None if groups is None else Lookup(groups.heads, _unit_of(groups.heads), groups.above)
        self._starts = np.array([0, len(cells)], np.int64) if groups is None else groups.starts

    def nearest(self, Q: Matrix, count: int, looked_at: float = LOOKED_AT) -> tuple[I32, Matrix]:
        """Return ids and similarities `[q, count]` of the centroids nearest to each row of `Q [q, d]`, best first.

        With groups the result is approximate: about 95 % of the nearest 32 are among them.

        Args:
            Q: query rows `[q, d]`.
            count: at most C.
            looked_at: how many centroids to compare; fewer take less time and find less.
        """
        queries, unit = scaled_rows(Q)
        ids, values = self._nearest(queries, count, looked_at)
        return ids, values.astype(np.float32) * np.float32(unit * self._unit)

    def lists(self, Q: Matrix, count: int) -> tuple[I32, Matrix, Matrix]:
        """Return ids and similarities like `nearest`, and `[q, count]` their gains.

        The gain is how far each is above what the row has in a passage that none of them finds. That is estimated by the
        similarity of a centroid farther down, as a passage's best may be any (docs/performance/notes.md).
        """
        return _with_gains(*self.nearest(Q, self._floor_rank(count)), count)

    def _floor_rank(self, count: int) -> int:
        return max(count, min(FLOOR_RANK, len(self._cells) // FLOOR_SHARE))

    def parts(self, rows: int) -> list[slice]:
        """Split a query of so many rows into parts whose tables of `look` have 512 MB each at most."""
        most = max(1, MOST_TABLE // (len(self._cells) + 1) // GROUP) * GROUP
        return [slice(first, first + most) for first in range(0, rows, most)]

    def look(self, Q: Matrix, count: int) -> Looked:
        """Return the result of `lists`, with the similarities of all compared centroids. Q: rows of one of `parts`."""
        queries, unit = scaled_rows(Q)
        near, floors = self._near(queries, self._floor_rank(count), LOOKED_AT)
        lengths = np.linalg.norm(Q, axis=1)
        floors = -lengths if self._heads is None else floors * np.float32(unit * self._heads._unit)
        scale = LEVELS / max(1e-30, float((lengths - floors).max()))
        pairs = np.argsort(near.astype(np.uint16), axis=None, kind="stable")
        shifts = np.full(len(self._starts) - 1, NOWHERE, np.int64)
        rows = _loops().place_groups(self._starts, pairs, near, shifts)
        table = np.zeros((rows, -(-len(Q) // GROUP) * GROUP), np.uint8)
        seen = np.zeros(len(self._cells) // 8 + 1, np.uint8)
        ids, values = _empty(len(Q), self._floor_rank(count))
        step = np.float32(unit * self._unit * scale)
        offsets = (floors * scale).astype(np.float32)
        _loops().scan_groups(
            self._cells, self._starts, pairs, near, queries, ids, values, count, shifts, seen, table, step, offsets
        )  # fmt: skip
        if (ids[:, -1] < 0).any():  # a row's groups had fewer
            ids, values = self._scanned(queries, self._all_groups(len(Q)), ids.shape[1])
        similarities = values.astype(np.float32) * np.float32(unit * self._unit)
        lists = _with_gains(ids, similarities, count)
        return Looked(*lists, table, shifts, self._group_of, seen, scale, float(floors.sum()))

    def nearest_of_own(self, rows: Matrix, order: I32, firsts: I64, owners: I64) -> tuple[I32, Matrix]:
        """Return the centroid `[n]` nearest to each row among its owner's, and the similarity.

        The owner's centroids are `order[firsts[o]:firsts[o + 1]]`; -1 if the similarity is below 0.
        """
        queries, unit = scaled_rows(rows)
        ids, values = np.full(len(rows), -1, np.int32), np.empty(len(rows), np.int32)
        by_owner = np.argsort(owners, kind="stable")
        _loops().nearest_of_own(self._cells, order, firsts, owners, by_owner, queries, ids, values)
        return ids, values.astype(np.float32) * np.float32(unit * self._unit)

    def _nearest(self, queries: I16, count: int, looked_at: float) -> tuple[I32, I32]:
        return self._scanned(queries, self._near(queries, count, looked_at)[0], count)

    def _scanned(self, queries: I16, near: I32, count: int) -> tuple[I32, I32]:
        ids, values = _empty(len(queries), count)
        if not count:
            return ids, values
        _loops().nearest_of_groups(self._cells, self._starts, near, queries, ids, values)
        if (ids[:, -1] < 0).any() and near.shape[1] < len(self._starts) - 1:
            return self._scanned(queries, self._all_groups(len(queries)), count)
        return ids, values

    def _near(self, queries: I16, count: int, looked_at: float) -> tuple[I32, Matrix]:
        """Return groups `[q, P]` of each row, and the product of the last one's head; 0 if there are no heads."""
        total = len(self._starts) - 1
        if self._heads is None:
            return self._all_groups(len(queries)), np.zeros(len(queries), np.float32)
        wanted = max(round(looked_at * total ** (1 / 6)), WANTED_OF * total * count // len(self._cells))
        near, values = self._heads._nearest(queries, min(total, wanted), looked_at)
        return near, values[:, -1].astype(np.float32)

    def _all_groups(self, rows: int) -> I32:
        return np.tile(np.arange(len(self._starts) - 1, dtype=np.int32), (rows, 1))

    @functools.cached_property
    def _group_of(self) -> U16:
        return np.repeat(np.arange(len(self._starts) - 1, dtype=np.uint16), np.diff(self._starts))


def _with_gains(ids: I32, similarities: Matrix, count: int) -> tuple[I32, Matrix, Matrix]:
    """Return the best `count` of the centroids near each row, and how far each is above the last of all."""
    best, gains = similarities[:, :count], similarities[:, :count] - similarities[:, -1:]
    return np.ascontiguousarray(ids[:, :count]), np.ascontiguousarray(best), gains


def _unit_of(heads: NDArray[np.int8]) -> float:
    """Return the unit of heads, which are unit rows times one whole number."""
    return 1 / float(np.linalg.norm(heads[0].astype(np.float64)))


def scaled_rows(rows: Matrix) -> tuple[I16, float]:
    """Return rows as whole numbers times a unit, such that no sum of products with an int8 row exceeds 31 bits."""
    unit = max(float(np.linalg.norm(rows, axis=1).max(initial=0)), 1e-12) / LARGEST
    return np.rint(rows / np.float32(unit)).astype(np.int16), unit


def _empty(rows: int, count: int) -> tuple[I32, I32]:
    return np.full((rows, count), -1, np.int32), np.empty((rows, count), np.int32)


@functools.cache
def _loops() -> Any:
    try:
        from late_interaction import lookup_kernels
    except MissingDependency:
        from late_interaction import lookup_arrays

        return lookup_arrays
    return lookup_kernels
