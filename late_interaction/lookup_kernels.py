"""Compiled loops that find the centroids nearest to rows.

Shapes: C centroids in G groups, n rows of d dimensions, P groups of each, T centroids wanted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction import simd
from late_interaction.array_types import F32, I16, I32, I64, U8
from late_interaction.compiling import FAST, compiler
from late_interaction.simd import prefetch

__all__ = ["nearest_of_groups", "nearest_of_own", "scan_groups"]

_fast = compiler(__file__, simd.__file__, fastmath=FAST)


@_fast
def _product(row: NDArray[Any], query: I16) -> Any:
    value = np.int32(0)
    for j in range(row.shape[0]):
        value = np.int32(value + np.int32(np.int32(row[j]) * np.int32(query[j])))
    return value


@_fast
def _keep(value: int, number: int, ids: I32, values: I32, count: int) -> int:
    """Insert a product among the largest, best first, of which there are `count`; return how many there are now."""
    room = ids.shape[0]
    if count == room:
        if room == 0 or value <= values[room - 1]:
            return count
        count -= 1
    place = count
    while place > 0 and value > values[place - 1]:
        values[place] = values[place - 1]
        ids[place] = ids[place - 1]
        place -= 1
    values[place] = value
    ids[place] = number
    return count + 1


@_fast
def _scan(rows: NDArray[Any], first: int, query: I16, ids: I32, values: I32, count: int, ahead: NDArray[Any]) -> int:
    """Keep the largest products with `rows`, numbered from `first` on. ahead: memory to prefetch meanwhile."""
    for number in range(rows.shape[0]):
        if number < ahead.shape[0]:
            prefetch(ahead, number)
        count = _keep(_product(rows[number], query), first + number, ids, values, count)
    return count


@_fast
def nearest_of_groups(cells: NDArray[Any], starts: I64, near: I32, queries: I16, ids: I32, values: I32) -> None:
    """Write numbers `ids [n, T]` and products of the best centroids of the groups `near [n, P]`.

    Unused places are left alone.
    """
    for row in range(queries.shape[0]):
        count = 0
        for place in range(near.shape[1]):
            first = starts[near[row, place]]
            rows, ahead = cells[first : starts[near[row, place] + 1]], cells[:0]
            if place + 1 < near.shape[1]:
                ahead = cells[starts[near[row, place + 1]] : starts[near[row, place + 1] + 1]]
            count = _scan(rows, first, queries[row], ids[row], values[row], count, ahead)


@_fast
def scan_groups(
    cells: NDArray[Any],
    starts: I64,
    pairs: I64,
    near: I32,
    queries: I16,
    ids: I32,
    values: I32,
    shifts: I64,
    seen: U8,
    table: U8,
    step: float,
    floors: F32,
) -> None:
    """Find the best centroids like `nearest_of_groups`, and record every product.

    Every product, times `step` and less the row's floor, is rounded and written to `table` at the centroid's number plus
    `shifts` of its group, and the centroid's bit in `seen` is set. pairs: flat places of `near`, group by group, so that
    the centroids of a group are read once for all rows that need it.
    """
    counts, width = np.zeros(queries.shape[0], np.int64), near.shape[1]
    first = 0
    while first < pairs.shape[0]:
        group = near[pairs[first] // width, pairs[first] % width]
        last = first + 1
        while last < pairs.shape[0] and near[pairs[last] // width, pairs[last] % width] == group:
            last += 1
        start = starts[group]
        rows, block = cells[start : starts[group + 1]], table[start + shifts[group] :]
        for number in range(rows.shape[0]):
            seen[(start + number) >> 3] |= np.uint8(1 << ((start + number) & 7))
            for place in range(first, last):
                row = pairs[place] // width
                value = _product(rows[number], queries[row])
                level = np.float32(value) * np.float32(step) - floors[row] + np.float32(0.5)
                block[number, row] = np.uint8(min(max(level, np.float32(0)), np.float32(255)))
                counts[row] = _keep(value, start + number, ids[row], values[row], counts[row])
        first = last


@_fast
def nearest_of_own(
    cells: NDArray[Any], order: I32, firsts: I64, owners: I64, rows: I64, queries: I16, ids: I32, values: I32
) -> None:
    """Write the nearest centroid among each owner's.

    `ids [n]` gets the centroid with the largest product among `order[firsts[o]:firsts[o + 1]]` for the owner o =
    `owners[row]` of each of `rows`, which are sorted by owner. Rows with an owner below 0 are left out.
    """
    own = np.empty((1, cells.shape[1]), cells.dtype)
    known, count = -1, 0
    for place in range(rows.shape[0]):
        row = rows[place]
        owner = owners[row]
        if owner < 0:
            continue
        first = firsts[owner]
        if owner != known:
            known, count = owner, firsts[owner + 1] - first
            if count > own.shape[0]:
                own = np.empty((2 * count, cells.shape[1]), cells.dtype)
            for number in range(count):
                own[number] = cells[order[first + number]]
        if _scan(own[:count], 0, queries[row], ids[row : row + 1], values[row : row + 1], 0, own[:0]):
            ids[row] = order[first + ids[row]]
