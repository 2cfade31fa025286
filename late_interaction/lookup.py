"""The centroids nearest to rows, among a million at a cost that hardly grows with their number: groups whose heads are nearest,
which are themselves looked up by groups where they are many, then the centroids of those."""

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
WANTED_OF = 4  # centroids in the groups of a row for each that is wanted, at least
FLOOR_RANK, FLOOR_SHARE = 128, 512  # of a missing similarity: the 128th best of a row, or of few centroids one in 512
LARGEST = 32_767
MAX_GROUPS = 1 << 16  # that two bytes can name
GROUP = 16  # query rows that a loop takes together
LEVELS = 255  # of a similarity in eight bits
MOST_TABLE = 1 << 29  # bytes of a table of similarities; a query of more rows is looked at in parts


@dataclass(frozen=True, eq=False)
class Groups:
    """Centroids in groups of neighbours: those of group g are the rows `starts[g]` to `starts[g + 1]`. heads: `[G, d]` int8,
    of one length. above: groups of the heads, None where all of these are compared."""

    heads: NDArray[np.int8]
    starts: I64
    above: Groups | None = None


@dataclass(frozen=True, eq=False)
class Looked:
    """lists, similarities, gains: as Lookup.lists has them.

    table: `[n, width]`, the similarities of all centroids that were looked at, each row of the query from its floor on in steps
    of 1 / scale; centroid c of group g is its row c + shifts[g], and row 0, of zeros, is for those that were not looked at.
    seen: a bit for each centroid, set of those that were looked at. floor: the sum of all rows'.
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
    """cells: `[C, d]`, int8 or int16, whose products with rows are times `unit`. Without groups all of them are compared."""

    def __init__(self, cells: NDArray[Any], unit: float, groups: Groups | None) -> None:
        self._cells, self._unit = cells, unit
        self._heads = None if groups is None else Lookup(groups.heads, _unit_of(groups.heads), groups.above)
        self._starts = np.array([0, len(cells)], np.int64) if groups is None else groups.starts

    def nearest(self, Q: Matrix, count: int, looked_at: float = LOOKED_AT) -> tuple[I32, Matrix]:
        """Ids and similarities `[q, count]` of the centroids nearest to each row of `Q [q, d]`, best first; count: at most C.

        By groups they are near-best: some 95 % of the nearest 32 are among them. looked_at: less finds less of them, sooner.
        """
        queries, unit = scaled_rows(Q)
        ids, values = self._nearest(queries, count, looked_at)
        return ids, values.astype(np.float32) * np.float32(unit * self._unit)

    def lists(self, Q: Matrix, count: int) -> tuple[I32, Matrix, Matrix]:
        """As `nearest`; and `[q, count]`, how far each is above what the row has in a passage that none of them finds: that is
        estimated by the similarity of a centroid farther down, as a passage's best may be any (docs/performance/notes.md)."""
        return _with_gains(*self.nearest(Q, self._floor_rank(count)), count)

    def _floor_rank(self, count: int) -> int:
        return max(count, min(FLOOR_RANK, len(self._cells) // FLOOR_SHARE))

    def parts(self, rows: int) -> list[slice]:
        """Of a query of so many rows, those whose tables of `look` have 512 MB each at most."""
        most = max(1, MOST_TABLE // (len(self._cells) + 1) // GROUP) * GROUP
        return [slice(first, first + most) for first in range(0, rows, most)]

    def look(self, Q: Matrix, count: int) -> Looked:
        """As `lists`, with the similarities of all that was compared on the way. Q: rows of one of `parts`."""
        queries, unit = scaled_rows(Q)
        near, floors = self._near(queries, self._floor_rank(count), LOOKED_AT)
        lengths = np.linalg.norm(Q, axis=1)
        floors = -lengths if self._heads is None else floors * np.float32(unit * self._heads._unit)
        scale = LEVELS / max(1e-30, float((lengths - floors).max()))
        shifts, rows = self._blocks(near)
        table = np.zeros((rows, -(-len(Q) // GROUP) * GROUP), np.uint8)
        seen = np.zeros(len(self._cells) // 8 + 1, np.uint8)
        ids, values = _empty(len(Q), self._floor_rank(count))
        step = np.float32(unit * self._unit * scale)
        offsets = (floors * scale).astype(np.float32)
        pairs = np.argsort(near, axis=None, kind="stable")
        _loops().scan_groups(self._cells, self._starts, pairs, near, queries, ids, values, shifts, seen, table, step, offsets)
        if (ids[:, -1] < 0).any():  # the groups of a row had fewer
            ids, values = self._scanned(queries, self._all_groups(len(Q)), ids.shape[1])
        similarities = values.astype(np.float32) * np.float32(unit * self._unit)
        lists = _with_gains(ids, similarities, count)
        return Looked(*lists, table, shifts, self._group_of, seen, scale, float(floors.sum()))

    def nearest_of_own(self, rows: Matrix, order: I32, firsts: I64, owners: I64) -> tuple[I32, Matrix]:
        """The centroid nearest to each row, `[n]`, among those that `order[firsts[o]:firsts[o + 1]]` names for its owner o, and
        the similarity; -1 where that is below 0."""
        queries, unit = scaled_rows(rows)
        ids, values = np.full(len(rows), -1, np.int32), np.empty(len(rows), np.int32)
        by_owner = np.argsort(owners, kind="stable")
        _loops().nearest_of_own(self._cells, order, firsts, owners, by_owner, queries, ids, values)
        return ids, values.astype(np.float32) * np.float32(unit * self._unit)

    def _nearest(self, queries: I16, count: int, looked_at: float) -> tuple[I32, I32]:
        return self._scanned(queries, self._near(queries, count, looked_at)[0], count)

    def _scanned(self, queries: I16, near: I32, count: int) -> tuple[I32, I32]:
        ids, values = _empty(len(queries), count)
        _loops().nearest_of_groups(self._cells, self._starts, near, queries, ids, values)
        if count and (ids[:, -1] < 0).any() and near.shape[1] < len(self._starts) - 1:
            return self._scanned(queries, self._all_groups(len(queries)), count)
        return ids, values

    def _near(self, queries: I16, count: int, looked_at: float) -> tuple[I32, Matrix]:
        """Groups `[q, P]` of each row, and the product of the last one's head, 0 where there are no heads."""
        total = len(self._starts) - 1
        if self._heads is None:
            return self._all_groups(len(queries)), np.zeros(len(queries), np.float32)
        wanted = max(round(looked_at * total ** (1 / 6)), WANTED_OF * total * count // len(self._cells))
        near, values = self._heads._nearest(queries, min(total, wanted), looked_at)
        return near, values[:, -1].astype(np.float32)

    def _all_groups(self, rows: int) -> I32:
        return np.tile(np.arange(len(self._starts) - 1, dtype=np.int32), (rows, 1))

    def _blocks(self, near: I32) -> tuple[I64, int]:
        """By group what to add to a centroid's number for its row in a table of those looked at, far below 0 for others; and
        how many rows that has."""
        asked = np.unique(near)
        sizes = self._starts[asked + 1] - self._starts[asked]
        ends = 1 + np.cumsum(sizes)
        shifts = np.full(len(self._starts) - 1, -(1 << 40), np.int64)
        shifts[asked] = ends - sizes - self._starts[asked]
        return shifts, int(ends[-1])

    @functools.cached_property
    def _group_of(self) -> U16:
        return np.repeat(np.arange(len(self._starts) - 1, dtype=np.uint16), np.diff(self._starts))


def _with_gains(ids: I32, similarities: Matrix, count: int) -> tuple[I32, Matrix, Matrix]:
    """The best `count` of the centroids near each row, and how far each is above the last of all."""
    best, gains = similarities[:, :count], similarities[:, :count] - similarities[:, -1:]
    return np.ascontiguousarray(ids[:, :count]), np.ascontiguousarray(best), gains


def _unit_of(heads: NDArray[np.int8]) -> float:
    """Of heads, which are unit rows times one whole number."""
    return 1 / float(np.linalg.norm(heads[0].astype(np.float64)))


def scaled_rows(rows: Matrix) -> tuple[I16, float]:
    """Rows as whole numbers times a unit, so that no sum of products with an int8 row passes 31 bits."""
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
