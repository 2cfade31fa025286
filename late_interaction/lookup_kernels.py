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
from late_interaction.simd import halved, products

__all__ = ["nearest_of_groups", "nearest_of_own", "place_groups", "scan_groups"]

ROOM = 4  # places for each centroid wanted, so that the best are rarely separated from the others
LEAST = -(1 << 31)
_LOW = (1 << 32) - 1  # of a key, whose upper part is a product and whose lower part the inverse of a number

_fast = compiler(__file__, simd.__file__, fastmath=FAST)


@_fast
def _separate(keys: I64, count: int, room: int) -> None:
    """Move the `room` largest of the first `count` keys, all different, before the others."""
    first, last = 0, count - 1
    while first < last:
        middle = keys[(first + last) >> 1]
        low, high = first, last
        while low <= high:
            while keys[low] > middle:
                low += 1
            while keys[high] < middle:
                high -= 1
            if low <= high:
                keys[low], keys[high] = keys[high], keys[low]
                low += 1
                high -= 1
        if room - 1 <= high:
            last = high
        elif room - 1 >= low:
            first = low
        else:
            return


@_fast
def _keep(values: I32, count: int, first: int, keys: I64, kept: int, least: int, room: int) -> tuple[int, int]:
    """Add `count` products, numbered from `first` on, to the `kept` keys unless they are below `least`.

    Returns how many keys there are and what the next must reach to be among the `room` largest.
    """
    for number in range(count):
        if values[number] >= least:
            keys[kept] = (np.int64(values[number]) << 32) + (_LOW - (first + number))
            kept += 1
            if kept == keys.shape[0]:
                _separate(keys, kept, room)
                kept = room
                least = keys[:room].min() >> 32
    return kept, least


@_fast
def _write(keys: I64, kept: int, ids: I32, values: I32, ordered: int) -> None:
    """Write the largest keys: the first `ordered` of them best first, the least one last if there is one for each place."""
    room = ids.shape[0]
    if kept > room:
        _separate(keys, kept, room)
        kept = room
    ordered = min(ordered, kept)
    if 0 < ordered < kept:
        _separate(keys, kept, ordered)
        least = ordered
        for place in range(ordered, kept):
            least = place if keys[place] < keys[least] else least
        keys[least], keys[kept - 1] = keys[kept - 1], keys[least]
    keys[:ordered].sort()
    for place in range(kept):
        key = keys[ordered - 1 - place if place < ordered else place]
        ids[place] = _LOW - (key & _LOW)
        values[place] = key >> 32


@_fast
def _longest(starts: I64) -> int:
    longest = 0
    for group in range(starts.shape[0] - 1):
        longest = max(longest, starts[group + 1] - starts[group])
    return longest


@_fast
def nearest_of_groups(cells: NDArray[Any], starts: I64, near: I32, queries: I16, ids: I32, values: I32) -> None:
    """Write numbers `ids [n, T]` and products of the best centroids of the groups `near [n, P]`, best first.

    Unused places are left alone.
    """
    room = ids.shape[1]
    keys, found = np.empty(ROOM * room + 1, np.int64), np.empty(_longest(starts), np.int32)
    halves = np.empty((2, queries.shape[1]), np.int8)
    for row in range(queries.shape[0]):
        kept, least, shift = 0, LEAST, halved(queries[row], halves)
        for place in range(near.shape[1]):
            first = starts[near[row, place]]
            rows, ahead = cells[first : starts[near[row, place] + 1]], cells[:0]
            if place + 1 < near.shape[1]:
                ahead = cells[starts[near[row, place + 1]] : starts[near[row, place + 1] + 1]]
            products(rows, queries[row], halves, shift, found, ahead)
            kept, least = _keep(found, rows.shape[0], first, keys, kept, least, room)
        _write(keys, kept, ids[row], values[row], room)


@_fast
def place_groups(starts: I64, pairs: I64, near: I32, shifts: I64) -> int:
    """Write by group the shift from a centroid's number to its row in a table; return the number of rows.

    Groups that are not among `near` are left alone. pairs: as for `scan_groups`. Row 0 is nobody's.
    """
    rows, known, width = 1, -1, near.shape[1]
    for place in range(pairs.shape[0]):
        group = near[pairs[place] // width, pairs[place] % width]
        if group != known:
            known = group
            shifts[group] = rows - starts[group]
            rows += starts[group + 1] - starts[group]
    return rows


@_fast
def scan_groups(
    cells: NDArray[Any],
    starts: I64,
    pairs: I64,
    near: I32,
    queries: I16,
    ids: I32,
    values: I32,
    ordered: int,
    shifts: I64,
    seen: U8,
    table: U8,
    step: float,
    floors: F32,
) -> None:
    """Find the best centroids like `nearest_of_groups`, and record every product.

    Of the best, the first `ordered` come best first, and the least last. Every product, times `step` and less the row's floor,
    is rounded and written to `table` at the centroid's number plus `shifts` of its group, and the centroid's bit in `seen` is
    set. pairs: flat places of `near`, group by group, so that the centroids of a group are read once for all rows that need it.
    """
    rows, width, room = queries.shape[0], near.shape[1], ids.shape[1]
    kept, least = np.zeros(rows, np.int64), np.full(rows, LEAST, np.int64)
    keys, found = np.empty((rows, ROOM * room + 1), np.int64), np.empty(_longest(starts), np.int32)
    halves, lost = np.empty((rows, 2, queries.shape[1]), np.int8), np.empty(rows, np.int32)
    levels = np.empty(found.shape[0], np.int32)
    for row in range(rows):
        lost[row] = halved(queries[row], halves[row])
    known = -1
    for place in range(pairs.shape[0]):
        row, group = pairs[place] // width, near[pairs[place] // width, pairs[place] % width]
        start, count = starts[group], starts[group + 1] - starts[group]
        block, ahead = table[start + shifts[group] : start + shifts[group] + count], cells[:0]
        if group != known:
            known = group
            for number in range(start, start + count):
                seen[number >> 3] |= np.uint8(1 << (number & 7))
        if place + 1 < pairs.shape[0]:
            after = near[pairs[place + 1] // width, pairs[place + 1] % width]
            if after != group:
                ahead = cells[starts[after] : starts[after + 1]]
        products(cells[start : start + count], queries[row], halves[row], lost[row], found, ahead)
        for number in range(count):
            level = np.float32(found[number]) * np.float32(step) - floors[row] + np.float32(0.5)
            level = level if level > 0 else np.float32(0)
            levels[number] = np.int32(level if level < 255 else np.float32(255))
        for number in range(count):
            block[number, row] = np.uint8(levels[number])
        kept[row], least[row] = _keep(found, count, start, keys[row], kept[row], least[row], room)
    for row in range(rows):
        _write(keys[row], kept[row], ids[row], values[row], ordered)


@_fast
def nearest_of_own(
    cells: NDArray[Any], order: I32, firsts: I64, owners: I64, rows: I64, queries: I16, ids: I32, values: I32
) -> None:
    """Write the nearest centroid among each owner's.

    `ids [n]` gets the centroid with the largest product among `order[firsts[o]:firsts[o + 1]]` for the owner o =
    `owners[row]` of each of `rows`, which are sorted by owner. Rows with an owner below 0 are left out.
    """
    own, found = np.empty((1, cells.shape[1]), cells.dtype), np.empty(1, np.int32)
    halves = np.empty((2, queries.shape[1]), np.int8)
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
                own, found = np.empty((2 * count, cells.shape[1]), cells.dtype), np.empty(2 * count, np.int32)
            for number in range(count):
                own[number] = cells[order[first + number]]
        products(own[:count], queries[row], halves, halved(queries[row], halves), found, own[:0])
        best = 0
        for number in range(1, count):
            best = number if found[number] > found[best] else best
        if count:
            ids[row], values[row] = order[first + best], found[best]
