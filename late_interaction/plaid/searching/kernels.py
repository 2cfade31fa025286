"""The compiled loop of a search's first stage.

Shapes: q query rows, T lists of each. Every index that comes from a file is checked against its array, so that a damaged
file cannot read foreign memory.
"""

from __future__ import annotations

import numpy as np

from late_interaction import simd
from late_interaction.array_types import I32, I64, U8, U16, Codes
from late_interaction.compiling import compiler
from late_interaction.simd import prefetch_cell, raise_bytes, trailing_zeros

__all__ = ["RANKS", "approximate_scores", "best_gathered", "count_postings", "gather"]

BLOCK = 256  # codes of a passage at a time
AHEAD = 8  # passages to prefetch
LINE, LINES = 64, 4  # bytes of a cache line; lines of a passage to prefetch
RANGE_BITS = 12
LAST_OF_RANGE = (1 << RANGE_BITS) - 1
RANK_BITS = 8
RANKS = 1 << RANK_BITS  # as many lists as a row may have
CLASSES = 1 << 12  # of totals, to tell the best from the others
_jit = compiler(__file__, simd.__file__)


@_jit
def _passages(lists: I32, row: int, rank: int, ivf_offsets: I64, ivf_passages: I32) -> I32:
    """Return the passages of a row's list; the next list is prefetched."""
    if rank + 1 < lists.shape[1] and 0 <= lists[row, rank + 1] < ivf_offsets.shape[0] - 1:
        for line in range(LINES):
            prefetch_cell(ivf_passages, ivf_offsets[lists[row, rank + 1]] + line * (LINE // 4))
    centroid = lists[row, rank]
    if not 0 <= centroid < ivf_offsets.shape[0] - 1:  # the codebook has grown since
        return ivf_passages[:0]
    return ivf_passages[max(0, ivf_offsets[centroid]) : max(0, min(ivf_offsets[centroid + 1], ivf_passages.shape[0]))]


@_jit
def count_postings(lists: I32, ivf_offsets: I64, ivf_passages: I32, counts: I64) -> None:
    """Add to `counts [q]` how many passages `gather` reads from the `lists [q, T]` of each row."""
    for row in range(lists.shape[0]):
        for rank in range(lists.shape[1]):
            counts[row] += _passages(lists, row, rank, ivf_offsets, ivf_passages).shape[0]


@_jit
def _count_by_range(lists: I32, ivf_offsets: I64, ivf_passages: I32, passages: int, ends: I64) -> None:
    """Write the number of pairs in each range of passages to `ends [1:]`."""
    for row in range(lists.shape[0]):
        for rank in range(lists.shape[1]):
            for passage in _passages(lists, row, rank, ivf_offsets, ivf_passages):
                if 0 <= passage < passages:
                    ends[(passage >> RANGE_BITS) + 1] += 1


@_jit
def _pairs_by_range(lists: I32, ivf_offsets: I64, ivf_passages: I32, passages: int, nexts: I64, pairs: I64) -> None:
    """Write passage and list of each pair at `nexts` of the passage's range, in the order of the lists."""
    for row in range(lists.shape[0]):
        for rank in range(lists.shape[1]):
            list_ = np.int64(row * RANKS + rank) << RANGE_BITS
            for passage in _passages(lists, row, rank, ivf_offsets, ivf_passages):
                if 0 <= passage < passages:
                    pairs[nexts[passage >> RANGE_BITS]] = list_ + (passage & LAST_OF_RANGE)
                    nexts[passage >> RANGE_BITS] += 1


@_jit
def _sum_pairs(pairs: I64, gains: I64, selected: U8, sums: I64, counted: I64, places: I64) -> int:
    """Write the selected passages of a range to `places`, each once, and add their gains to `sums`; return how many."""
    found = 0
    for pair in pairs:
        own, row, rank = pair & LAST_OF_RANGE, pair >> (RANGE_BITS + RANK_BITS), (pair >> RANGE_BITS) & (RANKS - 1)
        if counted[own] < 0 and selected[own]:
            places[found] = own
            found += 1
        if counted[own] != row:
            counted[own] = row
            sums[own] += gains[row, rank]
    return found


@_jit
def gather(
    lists: I32,
    gains: I64,
    ivf_offsets: I64,
    ivf_passages: I32,
    selected: U8,
    base: int,
    places: I64,
    totals: I64,
    found: int,
) -> int:
    """Sum over the rows for each passage in their `lists [q, T]`, best first, the `gains [q, T]` of the first that has it.

    Appends the passages of a segment that are `selected [P]`, by their number plus `base`, to `places`, of which there are
    `found`, and their sums to `totals`. Returns how many there are now. T is at most 256.

    Pairs of passage and list are sorted by ranges of 4,096 passages first, so that sums stay in the nearest cache.
    """
    passages = selected.shape[0]
    parts = (passages >> RANGE_BITS) + 1
    ends = np.zeros(parts + 1, np.int64)
    _count_by_range(lists, ivf_offsets, ivf_passages, passages, ends)
    for part in range(parts):
        ends[part + 1] += ends[part]
    pairs = np.empty(ends[parts], np.int64)
    _pairs_by_range(lists, ivf_offsets, ivf_passages, passages, ends[:parts].copy(), pairs)
    sums, counted = np.zeros(LAST_OF_RANGE + 1, np.int64), np.full(LAST_OF_RANGE + 1, -1, np.int64)
    for part in range(parts):
        own, first = pairs[ends[part] : ends[part + 1]], part << RANGE_BITS
        last = found + _sum_pairs(own, gains, selected[first:], sums, counted, places[found:])
        for number in range(found, last):
            totals[number] = sums[places[number]]
            places[number] += first + base
        for pair in own:
            sums[pair & LAST_OF_RANGE], counted[pair & LAST_OF_RANGE] = 0, -1
        found = last
    return found


@_jit
def best_gathered(places: I64, totals: I64, keep: int, passages: int, out: I64) -> int:
    """Write the `keep` of `places` with the largest `totals` to `out`, ascending; return how many.

    Totals are told apart in 4,096 classes; of the last class the lowest places are taken. passages: of all segments.
    """
    most = np.int64(0)
    for total in totals:
        most = max(most, total)
    shift = 0
    while most >> shift >= CLASSES:
        shift += 1
    counts = np.zeros(CLASSES, np.int64)
    for total in totals:
        counts[total >> shift] += 1
    last, left = CLASSES - 1, keep
    while last > 0 and counts[last] <= left:
        left -= counts[last]
        last -= 1
    better, equal = np.zeros((passages >> 6) + 1, np.uint64), np.zeros((passages >> 6) + 1, np.uint64)
    for number in range(places.shape[0]):
        place, class_ = places[number], totals[number] >> shift
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
            raise_bytes(table, places, found, best)
        total = 0
        for j in range(best.shape[0]):
            total += best[j]
        out[p] = total
