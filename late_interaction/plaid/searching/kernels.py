"""Compiled loops of codec and search. Each is compiled when it is first called and kept on disk beside this file.

Shapes: n token vectors of d dimensions, C centroids, q query rows in G groups of 16 (simd.py), P passages.
Every index that comes from a file is checked against its array, so that a damaged file cannot read foreign memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

from late_interaction.array_types import F32, I8, I16, I32, I64, U8, Codes

__all__ = [
    "approximate_scores",
    "centroid_scores",
    "collect_candidates",
    "column_ranges",
    "decode_rows",
    "encode_residuals",
    "fill_ivf",
    "maxsim_bytes",
    "maxsim_cells",
    "maxsim_rows",
    "round_scores",
    "top_centroids",
]

from late_interaction import simd
from late_interaction.simd import GROUP, TOKENS, add_base, dot_block, expand_shared, prefetch

BLOCK = 64  # vectors whose sixteen-bit cells are held at a time: 16 KiB at 128 dimensions

# numba binds kept machine code to the file of the function alone, but functions of simd.py are inlined here: their text
# becomes part of the names that the code is kept under
_SOURCES = hashlib.sha256(b"".join(Path(path).read_bytes() for path in (__file__, simd.__file__))).hexdigest()[:12]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _kept(**options: Any) -> Callable[[_Function], _Function]:
    def compiled(function: _Function) -> _Function:
        function.__qualname__ += f"_{_SOURCES}"
        kernel: _Function = numba.njit(cache=True, nogil=True, **options)(function)
        return kernel

    return compiled


_jit = _kept()
_fast = _kept(fastmath={"reassoc", "contract", "nsz"})


@_jit
def encode_residuals(vectors: F32, codes: I32, centroids: F32, cutoffs: F32, bits: int, out: U8) -> None:
    """Buckets of `vectors - centroids[codes]` into the zeroed `out [n, bytes]`, most significant bit first."""
    per_byte = 8 // bits
    count = cutoffs.shape[1]
    for i in range(vectors.shape[0]):
        code = codes[i]
        for j in range(vectors.shape[1]):
            residual = vectors[i, j] - centroids[code, j]
            bucket = 0
            for b in range(count):
                bucket += residual >= cutoffs[j, b]
            out[i, j // per_byte] |= np.uint8(bucket << (8 - bits * (1 + j % per_byte)))


@_fast
def _decode_row(code: int, residual: U8, centroids: F32, weights: F32, bits: int, out: F32) -> None:
    dim = out.shape[0]
    if bits == 4 and dim % 2 == 0:
        for b in range(dim // 2):
            byte = residual[b]
            out[2 * b] = centroids[code, 2 * b] + weights[2 * b, byte >> 4]
            out[2 * b + 1] = centroids[code, 2 * b + 1] + weights[2 * b + 1, byte & 15]
    elif bits == 2 and dim % 4 == 0:
        for b in range(dim // 4):
            byte = residual[b]
            out[4 * b] = centroids[code, 4 * b] + weights[4 * b, byte >> 6]
            out[4 * b + 1] = centroids[code, 4 * b + 1] + weights[4 * b + 1, (byte >> 4) & 3]
            out[4 * b + 2] = centroids[code, 4 * b + 2] + weights[4 * b + 2, (byte >> 2) & 3]
            out[4 * b + 3] = centroids[code, 4 * b + 3] + weights[4 * b + 3, byte & 3]
    else:
        per_byte = 8 // bits
        mask = (1 << bits) - 1
        for j in range(dim):
            bucket = (residual[j // per_byte] >> (8 - bits * (1 + j % per_byte))) & mask
            out[j] = centroids[code, j] + weights[j, bucket]
    square = np.float32(0)
    for j in range(dim):
        square += out[j] * out[j]
    scale = np.float32(1) / np.sqrt(square) if square > 1e-24 else np.float32(0)
    for j in range(dim):
        out[j] *= scale


@_jit
def decode_rows(codes: Codes, residuals: U8, centroids: F32, weights: F32, bits: int, out: F32) -> None:
    """Unit rows `out [n, d]`."""
    for i in range(codes.shape[0]):
        code = max(0, min(np.int64(codes[i]), centroids.shape[0] - 1))
        _decode_row(code, residuals[i], centroids, weights, bits, out[i])


@_fast
def _expand(residual: U8, cells: I32, bits: int, out: I32) -> None:
    """Cells of every byte, two to an int32, into `out [width / 2]`."""
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
    """Raises `best [G, 16]` to the similarities of `count` vectors; there is room for three more."""
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
def maxsim_cells(
    passages: I64,
    offsets: I64,
    codes: Codes,
    payload: U8,
    base: I16,
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
    """MaxSim `out [p]` of `passages`, whose rows are `base[code] + cells[byte]`, or where `shared` the same by
    `table[bucket] * spread`; -inf without rows. `shortest [p]`: the least length of those rows, where they are normalised."""
    width = base.shape[1]
    last = codes.shape[0]
    top = base.shape[0] - 1
    vectors = np.zeros((BLOCK, width), np.int16)
    words = vectors.view(np.int32)
    scales = np.full(BLOCK, unit, np.float32)
    sums = np.empty((TOKENS, GROUP), np.int32)
    best = np.empty((query.shape[0], GROUP), np.float32)
    for p in range(passages.shape[0]):
        start, stop = max(0, offsets[passages[p]]), min(last, offsets[passages[p] + 1])
        if start >= stop:
            out[p] = -np.inf
            continue
        best[:] = -np.inf
        least = np.float32(np.inf)
        for at in range(start, stop, BLOCK):
            count = min(BLOCK, stop - at)
            for i in range(count):
                prefetch(base, max(0, min(np.int64(codes[at + i]), top)))
            for i in range(count):
                from_ = base[max(0, min(np.int64(codes[at + i]), top))]
                if shared:
                    square = expand_shared(payload[at + i], table, spread, from_, vectors[i])
                else:
                    _expand(payload[at + i], cells, bits, words[i])
                    square = add_base(vectors[i], from_)
                if normalise:
                    length = np.sqrt(np.float32(square))
                    least = min(least, length)
                    scales[i] = unit / length if square > 0 else np.float32(0)
                else:
                    scales[i] = unit
            _best_of_block(vectors, scales, count, query, sums, best)
        total = np.float32(0)
        for group in range(query.shape[0]):
            for j in range(GROUP):
                total += best[group, j]
        out[p] = total
        shortest[p] = least


@_fast
def maxsim_rows(passages: I64, offsets: I64, rows: F32, query: I16, unit: float, out: F32, longest: F32) -> None:
    """MaxSim `out [p]` of `passages`, whose vectors are `rows [n, d]`; -inf without rows. `longest [p]`: of them."""
    last, dim = rows.shape
    vectors = np.zeros((BLOCK, query.shape[1] * 2), np.int16)
    scales = np.empty(BLOCK, np.float32)
    sums = np.empty((TOKENS, GROUP), np.int32)
    best = np.empty((query.shape[0], GROUP), np.float32)
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
        total = np.float32(0)
        for group in range(query.shape[0]):
            for j in range(GROUP):
                total += best[group, j]
        out[p] = total
        longest[p] = largest


@_fast
def maxsim_bytes(passages: I64, offsets: I64, rows: I8, query: I16, unit: float, out: F32) -> None:
    """MaxSim `out [p]` of `passages`, whose vectors are `rows [n, d]` divided by their lengths; -inf without rows."""
    last, dim = rows.shape
    vectors = np.zeros((BLOCK, query.shape[1] * 2), np.int16)
    scales = np.empty(BLOCK, np.float32)
    sums = np.empty((TOKENS, GROUP), np.int32)
    best = np.empty((query.shape[0], GROUP), np.float32)
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
        total = np.float32(0)
        for group in range(query.shape[0]):
            for j in range(GROUP):
                total += best[group, j]
        out[p] = total


@_fast
def centroid_scores(centroids: I16, query: I16, unit: float, out: F32) -> None:
    """`out [C, 16 G]`, C a multiple of four: products of all centroids and query rows."""
    sums = np.empty((TOKENS, GROUP), np.int32)
    for at in range(0, centroids.shape[0], TOKENS):
        for group in range(query.shape[0]):
            dot_block(centroids[at : at + TOKENS], query[group], sums)
            for i in range(TOKENS):
                for j in range(GROUP):
                    out[at + i, group * GROUP + j] = np.float32(sums[i, j]) * unit


@_fast
def column_ranges(S: F32, lows: F32, highs: F32) -> None:
    """Least and largest value of every column of `S [C, q]`, C at least 1."""
    lows[:] = S[0]
    highs[:] = S[0]
    for c in range(1, S.shape[0]):
        for j in range(S.shape[1]):
            lows[j] = min(lows[j], S[c, j])
            highs[j] = max(highs[j], S[c, j])


@_fast
def round_scores(S: F32, lows: F32, scale: float, out: U8) -> None:
    """`out [C, q]`: (S - lows) * scale, rounded; lows `[q]` is at most every value of its column, and no result passes 255."""
    for c in range(S.shape[0]):
        for j in range(S.shape[1]):
            out[c, j] = np.uint8(min(np.float32(255), (S[c, j] - lows[j]) * np.float32(scale) + np.float32(0.5)))


@_jit
def top_centroids(S: F32, out: I32) -> None:
    """Ids of the best centroids of each column of `S [C, q]`, into `out [q, probes]`, in no order. For few probes."""
    q, probes = out.shape
    best = np.full((q, probes), -np.inf, np.float32)
    worst = np.full(q, -np.inf, np.float32)
    for c in range(S.shape[0]):
        for j in range(q):
            if S[c, j] > worst[j]:
                place = np.argmin(best[j])
                best[j, place] = S[c, j]
                out[j, place] = c
                worst[j] = best[j].min()


@_jit
def collect_candidates(centroids: I32, ivf_offsets: I64, ivf_passages: I32, selected: U8, out: I64) -> int:
    """Passages in the lists of `centroids` that are `selected [P]`, each once, into `out`; returns how many.

    `selected` must be a copy: what was collected is marked by 2.
    """
    found = 0
    for centroid in centroids:
        if centroid + 1 >= ivf_offsets.shape[0]:
            continue  # the codebook has grown since
        for place in range(ivf_offsets[centroid], min(ivf_offsets[centroid + 1], ivf_passages.shape[0])):
            passage = ivf_passages[place]
            if 0 <= passage < selected.shape[0] and selected[passage] == 1:
                selected[passage] = 2
                out[found] = passage
                found += 1
    return found


@_fast
def approximate_scores(passages: I64, offsets: I64, codes: Codes, S: U8, out: I32) -> None:
    """Centroid interaction: `out[p]` = sum over the columns of `S [C, q]` of the largest value among p's codes."""
    width = S.shape[1]
    last = codes.shape[0]
    top = S.shape[0] - 1
    best = np.empty(width, np.uint8)
    for p in range(passages.shape[0]):
        best[:] = 0
        start, stop = max(0, offsets[passages[p]]), min(last, offsets[passages[p] + 1])
        for row in range(start, stop, 4):  # four at a time, so that `best` is loaded and stored once for them
            a = S[max(0, min(np.int64(codes[row]), top))]
            b = S[max(0, min(np.int64(codes[min(row + 1, stop - 1)]), top))]
            c = S[max(0, min(np.int64(codes[min(row + 2, stop - 1)]), top))]
            d = S[max(0, min(np.int64(codes[min(row + 3, stop - 1)]), top))]
            for j in range(width):
                best[j] = max(best[j], a[j], b[j], c[j], d[j])
        total = 0
        for j in range(width):
            total += best[j]
        out[p] = total


@_jit
def fill_ivf(codes: Codes, offsets: I64, ivf_offsets: I64, ivf_passages: I32, count_only: bool) -> None:
    """First call (count_only): `ivf_offsets [C+1]`, zeroed, gets the lengths' running sum. Second: `ivf_passages` too."""
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
