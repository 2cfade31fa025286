"""Compiled loops over what segments store: MaxSim of codecs, products with centroids, inverted lists.

Shapes: n token vectors of d dimensions, C centroids, q query rows in G groups of 16 (simd.py), P passages. Every index that
comes from a file is checked against its array, so that a damaged file cannot read foreign memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction import simd
from late_interaction.array_types import F32, I8, I16, I32, I64, U8, Codes
from late_interaction.compiling import FAST, compiler
from late_interaction.simd import GROUP, TOKENS, add_base, dot_block, expand_shared, prefetch

__all__ = ["fill_ivf", "maxsim_bytes", "maxsim_cells", "maxsim_rows"]

BLOCK = 64  # vectors whose sixteen-bit cells are held at a time: 16 KiB at 128 dimensions

_jit = compiler(__file__, simd.__file__)
_fast = compiler(__file__, simd.__file__, fastmath=FAST)


@_fast
def _expand(residual: U8, cells: I32, bits: int, out: I32) -> None:
    """Write the cells of every byte, two to an int32, into `out [width / 2]`."""
    if bits == 4:
        for b in range(residual.shape[0]):
            out[b] = cells[b, residual[b], 0]
    elif bits == 2:
        for b in range(residual.shape[0]):
            out[2 * b] = cells[b, residual[b], 0]
            out[2 * b + 1] = cells[b, residual[b], 1]
    else:
        for b in range(residual.shape[0]):
            for word in range(4):
                out[4 * b + word] = cells[b, residual[b], word]


@_fast
def _best_of_block(vectors: I16, scales: F32, count: int, query: I16, sums: I32, best: F32) -> None:
    """Raise `best [G, 16]` to the similarities of `count` vectors; there is room for three more."""
    filled = count
    while filled % TOKENS:
        vectors[filled] = vectors[count - 1]
        scales[filled] = scales[count - 1]
        filled += 1
    for group in range(query.shape[0]):
        row = best[group]
        for at in range(0, filled, TOKENS):
            dot_block(vectors[at : at + TOKENS], query[group], sums)
            for i in range(TOKENS):
                scale = scales[at + i]
                for j in range(GROUP):
                    row[j] = max(row[j], np.float32(sums[i, j]) * scale)


@_fast
def _block(query: I16) -> tuple[I16, F32, I32, F32]:
    """Allocate arrays for a block of vectors: cells, scales, the products of a few of them, the best of all."""
    groups, pairs = query.shape[:2]
    sums = np.empty((TOKENS, GROUP), np.int32)
    return np.zeros((BLOCK, 2 * pairs), np.int16), np.empty(BLOCK, np.float32), sums, np.empty((groups, GROUP), np.float32)


@_fast
def _total(best: F32) -> np.float32:
    total: np.float32 = np.float32(0)
    for group in range(best.shape[0]):
        for j in range(GROUP):
            total += best[group, j]
    return total


@_fast
def _next_rows(passages: I64, offsets: I64, p: int, at: int, stop: int, last: int) -> tuple[int, int]:
    """Return first and number of the rows that follow a block of passage p: its own from `at` on, or the next passage's."""
    if at >= stop:
        if p + 1 == passages.shape[0]:
            return 0, 0
        at, stop = max(0, offsets[passages[p + 1]]), min(last, offsets[passages[p + 1] + 1])
    return at, min(BLOCK, stop - at)


@_fast
def maxsim_cells(
    passages: I64,
    offsets: I64,
    codes: Codes,
    payload: U8,
    base: NDArray[Any],
    times: int,
    cells: I32,
    bits: int,
    shared: bool,
    table: U8,
    spread: I16,
    normalise: bool,
    query: I16,
    unit: float,
    out: F32,
    shortest: F32,
) -> None:
    """Compute MaxSim `out [p]` of `passages` from codes and payload; -inf without rows.

    Rows are `base[code] * times + cells[byte]`, or if `shared` the same by `table[bucket] * spread`. base: int8 or int16.
    If rows are normalised, `shortest [p]` gets the least length of each passage's rows.
    """
    last = codes.shape[0]
    top = base.shape[0] - 1
    vectors, scales, sums, best = _block(query)
    words = vectors.view(np.int32)
    width, factor, near = base.shape[1], np.int16(times), np.empty(base.shape[1], np.int16)
    for p in range(passages.shape[0]):
        start, stop = max(0, offsets[passages[p]]), min(last, offsets[passages[p] + 1])
        if start >= stop:
            out[p] = -np.inf
            continue
        best[:] = -np.inf
        least = np.float32(np.inf)
        for at in range(start, stop, BLOCK):
            count = min(BLOCK, stop - at)
            first, ahead = _next_rows(passages, offsets, p, at + BLOCK, stop, last)
            for i in range(count):
                if i < ahead:
                    prefetch(payload, first + i)
                    prefetch(base, max(0, min(np.int64(codes[first + i]), top)))
                row = base[max(0, min(np.int64(codes[at + i]), top))]
                for j in range(width):
                    near[j] = np.int16(row[j]) * factor
                if shared:
                    square = expand_shared(payload[at + i], table, spread, near, vectors[i])
                else:
                    _expand(payload[at + i], cells, bits, words[i])
                    square = add_base(vectors[i], near)
                if normalise:
                    length = np.sqrt(np.float32(square))
                    least = min(least, length)
                    scales[i] = unit / length if square > 0 else np.float32(0)
                else:
                    scales[i] = unit
            _best_of_block(vectors, scales, count, query, sums, best)
        out[p] = _total(best)
        shortest[p] = least


@_fast
def maxsim_rows(passages: I64, offsets: I64, rows: F32, query: I16, unit: float, out: F32, longest: F32) -> None:
    """Compute MaxSim `out [p]` of `passages` with vectors `rows [n, d]`; -inf without rows. `longest [p]`: their length."""
    last, dim = rows.shape
    vectors, scales, sums, best = _block(query)
    for p in range(passages.shape[0]):
        start, stop = max(0, offsets[passages[p]]), min(last, offsets[passages[p] + 1])
        if start >= stop:
            out[p] = -np.inf
            continue
        best[:] = -np.inf
        largest = np.float32(0)
        for at in range(start, stop, BLOCK):
            count = min(BLOCK, stop - at)
            for i in range(count):
                row = rows[at + i]
                square = np.float32(0)
                for j in range(dim):
                    square += row[j] * row[j]
                norm = np.sqrt(square)
                largest = max(largest, norm)
                scale = np.float32(32000) / norm if norm > 1e-20 else np.float32(0)
                for j in range(dim):
                    vectors[i, j] = np.int16(np.rint(row[j] * scale))
                scales[i] = unit * norm / np.float32(32000)
            _best_of_block(vectors, scales, count, query, sums, best)
        out[p] = _total(best)
        longest[p] = largest


@_fast
def maxsim_bytes(passages: I64, offsets: I64, rows: I8, query: I16, unit: float, out: F32) -> None:
    """Compute MaxSim `out [p]` of `passages` with vectors `rows [n, d]` divided by their lengths; -inf without rows."""
    last, dim = rows.shape
    vectors, scales, sums, best = _block(query)
    for p in range(passages.shape[0]):
        start, stop = max(0, offsets[passages[p]]), min(last, offsets[passages[p] + 1])
        if start >= stop:
            out[p] = -np.inf
            continue
        best[:] = -np.inf
        for at in range(start, stop, BLOCK):
            count = min(BLOCK, stop - at)
            for i in range(count):
                square = np.int32(0)
                for j in range(dim):
                    cell = np.int16(rows[at + i, j])
                    vectors[i, j] = cell
                    square += np.int32(cell) * np.int32(cell)
                scales[i] = unit / np.sqrt(np.float32(square)) if square > 0 else np.float32(0)
            _best_of_block(vectors, scales, count, query, sums, best)
        out[p] = _total(best)


@_jit
def fill_ivf(codes: Codes, offsets: I64, ivf_offsets: I64, ivf_passages: I32, count_only: bool) -> None:
    """Fill the inverted lists in two calls.

    The first (count_only) writes the running sum of the lengths to the zeroed `ivf_offsets [C+1]`, the second also
    `ivf_passages`.
    """
    centroids = ivf_offsets.shape[0] - 1
    seen = np.full(centroids, -1, np.int64)
    place = ivf_offsets.copy()
    for passage in range(offsets.shape[0] - 1):
        for row in range(offsets[passage], offsets[passage + 1]):
            code = np.int64(codes[row])
            if seen[code] != passage:
                seen[code] = passage
                if count_only:
                    ivf_offsets[code + 1] += 1
                else:
                    ivf_passages[place[code]] = passage
                    place[code] += 1
    if count_only:
        for c in range(centroids):
            ivf_offsets[c + 1] += ivf_offsets[c]
