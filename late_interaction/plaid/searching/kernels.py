"""The compiled loop of a search's first stage.

Shapes: q query rows, T lists of each. Every index that comes from a file is checked against its array, so that a damaged
file cannot read foreign memory.
"""

from __future__ import annotations

import numpy as np

from late_interaction import simd
from late_interaction.array_types import I32, I64, U8, U16, Codes
from late_interaction.compiling import compiler
from late_interaction.simd import prefetch, prefetch_cell, raise_bytes, trailing_zeros

__all__ = ["ROWS", "approximate_scores", "best_gathered", "gather"]

BLOCK = 256  # codes of a passage at a time
AHEAD = 8  # passages to prefetch
LINE, LINES = 64, 4  # bytes of a cache line; lines of a passage to prefetch
ROWS = 1 << 32  # more than a query has rows; the low part of a total
CLASSES = 1 << 12  # of totals, to tell the best from the others
_jit = compiler(__file__, simd.__file__)
_SPREAD = 0x9E3779B97F4A7C15 >> 1  # multiplier of Fibonacci hashing


@_jit
def _slot(key: int, last: int) -> int:
    return ((key * _SPREAD) >> 20) & last


@_jit
def gather(
    lists: I32, gains: I64, ivf_offsets: I64, ivf_passages: I32, selected: U8, base: int, table: I64, slots: I64, found: int
) -> int:
    """Add to each passage in the `lists [q, T]`, best first, the `gains [q, T]` of the first list of every row that has it.

    The passages of a segment that are `selected [P]` go by their number plus `base` into the hash table `table [n, 2]`; n
    is a power of two and the table is never full. A row of it is the number, or -1 if free, and the total times ROWS plus
    the row that was counted last. `slots` lists the places taken, of which there are `found`. Returns how many there are
    now.
    """
    last = table.shape[0] - 1
    for row in range(lists.shape[0]):
        for rank in range(lists.shape[1]):
            centroid, gain = lists[row, rank], gains[row, rank]
            if centroid < 0 or centroid + 1 >= ivf_offsets.shape[0]:
                continue  # the codebook has grown since
            passages = ivf_passages[max(0, ivf_offsets[centroid]) : min(ivf_offsets[centroid + 1], ivf_passages.shape[0])]
            for place in range(passages.shape[0]):
                if place + AHEAD < passages.shape[0]:
                    prefetch(table, _slot(base + np.int64(passages[place + AHEAD]), last))
                passage = np.int64(passages[place])
                if not 0 <= passage < selected.shape[0] or selected[passage] == 0:
                    continue
                key = base + passage
                slot = _slot(key, last)
                while table[slot, 0] != key and table[slot, 0] >= 0:
                    slot = (slot + 1) & last
                if table[slot, 0] < 0:
                    table[slot, 0] = key
                    table[slot, 1] = gain * ROWS + row
                    slots[found] = slot
                    found += 1
                elif table[slot, 1] % ROWS != row:
                    table[slot, 1] += gain * ROWS + row - table[slot, 1] % ROWS
    return found


@_jit
def best_gathered(table: I64, slots: I64, found: int, keep: int, passages: int, out: I64) -> int:
    """Write the places of the `keep` best passages of `gather` to `out`, ascending; return how many.

    Totals are told apart in 4,096 classes; of the last class the lowest places are taken. passages: of all segments.
    """
    most = np.int64(0)
    for number in range(found):
        most = max(most, table[slots[number], 1] // ROWS)
    shift = 0
    while most >> shift >= CLASSES:
        shift += 1
    counts = np.zeros(CLASSES, np.int64)
    for number in range(found):
        counts[(table[slots[number], 1] // ROWS) >> shift] += 1
    last, left = CLASSES - 1, keep
    while last > 0 and counts[last] <= left:
        left -= counts[last]
        last -= 1
    better, equal = np.zeros((passages >> 6) + 1, np.uint64), np.zeros((passages >> 6) + 1, np.uint64)
    for number in range(found):
        place, class_ = table[slots[number], 0], (table[slots[number], 1] // ROWS) >> shift
        if class_ >= last:
            words = better if class_ > last else equal
            words[place >> 6] |= np.uint64(1) << np.uint64(place & 63)
    count = 0
    for word in range(better.shape[0]):
        rest, sure = better[word] | equal[word], better[word]
        while rest:
            bit = trailing_zeros(rest)
            if (sure >> np.uint64(bit)) & np.uint64(1) or left > 0:
                left -= 1 - np.int64((sure >> np.uint64(bit)) & np.uint64(1))
                out[count] = (word << 6) + bit
                count += 1
            rest &= rest - np.uint64(1)
    return count


@_jit
def _places(codes: Codes, seen: U8, group_of: U16, shifts: I64, out: I64) -> int:
    """Write the table rows of the centroids that were compared; return how many.

    The bits of a million stay in the cache, and without branches nothing is predicted wrongly.
    """
    found, centroids = 0, group_of.shape[0]
    for row in range(codes.shape[0]):
        code = min(np.int64(codes[row]) & 0xFFFFFFFF, centroids)  # whose bit is not set
        out[found] = code
        found += (seen[code >> 3] >> (code & 7)) & 1
    for row in range(found):
        out[row] += shifts[group_of[out[row]]]
    return found


@_jit
def approximate_scores(
    passages: I64, offsets: I64, codes: Codes, seen: U8, group_of: U16, shifts: I64, table: U8, out: I64
) -> None:
    """Compute centroid interaction: `out[p]` = sum over the table's columns of the largest value among p's codes."""
    last = codes.shape[0]
    best, places = np.empty(table.shape[1], np.uint8), np.empty(BLOCK, np.int64)
    most = np.empty(table.shape[1], np.uint8)
    for p in range(passages.shape[0]):
        if p + 2 * AHEAD < passages.shape[0]:
            prefetch_cell(offsets, passages[p + 2 * AHEAD])
        if p + AHEAD < passages.shape[0]:
            ahead, step = offsets[passages[p + AHEAD]], LINE // codes.itemsize
            for line in range(min(LINES, (offsets[passages[p + AHEAD] + 1] - ahead) // step + 1)):
                prefetch_cell(codes, ahead + line * step)
        start, stop = max(0, offsets[passages[p]]), min(last, offsets[passages[p] + 1])
        best[:] = 0
        for at in range(start, stop, BLOCK):
            found = _places(codes[at : min(at + BLOCK, stop)], seen, group_of, shifts, places)
            raise_bytes(table, places, found, most)
            for j in range(best.shape[0]):
                best[j] = max(best[j], most[j])
        total = 0
        for j in range(best.shape[0]):
            total += best[j]
        out[p] = total
