"""Compiled loops of codec and search. Each is compiled when it is first called and kept on disk beside this file.

Shapes: n token vectors of d dimensions, C centroids, q query rows padded to Q (a multiple of 32), P passages.
Every index that comes from a file is checked against its array, so that a damaged file cannot read foreign memory.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "approximate_scores",
    "collect_candidates",
    "decode_passages",
    "decode_rows",
    "encode_residuals",
    "fill_ivf",
    "quantize_scores",
    "segment_max_sum",
    "top_centroids",
]

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Codes = NDArray[Any]  # uint16 or int32

_jit = numba.njit(cache=True, nogil=True)
_fast = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


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
    if bits == 4:
        for b in range(dim // 2):
            byte = residual[b]
            out[2 * b] = centroids[code, 2 * b] + weights[2 * b, byte >> 4]
            out[2 * b + 1] = centroids[code, 2 * b + 1] + weights[2 * b + 1, byte & 15]
        if dim % 2:
            out[dim - 1] = centroids[code, dim - 1] + weights[dim - 1, residual[dim // 2] >> 4]
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


@_jit
def decode_passages(
    passages: I64, offsets: I64, codes: Codes, residuals: U8, centroids: F32, weights: F32, bits: int, out: F32
) -> None:
    """Unit rows of `passages`, one after the other, into `out [sum of their rows, d]`."""
    place = 0
    last = codes.shape[0]
    for passage in passages:
        for row in range(max(0, offsets[passage]), min(last, offsets[passage + 1])):
            if place >= out.shape[0]:
                return
            code = max(0, min(np.int64(codes[row]), centroids.shape[0] - 1))
            _decode_row(code, residuals[row], centroids, weights, bits, out[place])
            place += 1


@_fast
def segment_max_sum(S: F32, starts: I64, out: F32) -> None:
    """`out[p]` = sum over the columns of `S [rows, q]` of the largest value in rows starts[p]..starts[p+1] (not empty)."""
    q = S.shape[1]
    best = np.empty(q, np.float32)
    for p in range(out.shape[0]):
        best[:] = S[starts[p]]
        for row in range(starts[p] + 1, starts[p + 1]):
            for j in range(q):
                best[j] = max(best[j], S[row, j])
        total = np.float32(0)
        for j in range(q):
            total += best[j]
        out[p] = total


@_jit
def quantize_scores(S: F32, low: float, scale: float, out: U8) -> None:
    """`out [C, Q]`: (S [C, q] - low) * scale, rounded and cut to 0..255; the padding columns are left as they are."""
    for c in range(S.shape[0]):
        for j in range(S.shape[1]):
            out[c, j] = np.uint8(min(np.float32(255), max(np.float32(0), (S[c, j] - low) * scale + np.float32(0.5))))


@_jit
def top_centroids(S: F32, probes: int, out: I32) -> None:
    """Ids of the `probes` best centroids of every column of `S [C, q]`, into `out [q, probes]`, in no order."""
    q = S.shape[1]
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
        for place in range(ivf_offsets[centroid], min(ivf_offsets[centroid + 1], ivf_passages.shape[0])):
            passage = ivf_passages[place]
            if 0 <= passage < selected.shape[0] and selected[passage] == 1:
                selected[passage] = 2
                out[found] = passage
                found += 1
    return found


@_jit
def approximate_scores(passages: I64, offsets: I64, codes: Codes, S: U8, out: I32) -> None:
    """Centroid interaction: `out[p]` = sum over the columns of `S [C, Q]` of the largest value among p's codes."""
    width = S.shape[1]
    last = codes.shape[0]
    top = S.shape[0] - 1
    best = np.empty(width, np.uint8)
    for p in range(passages.shape[0]):
        best[:] = 0
        for row in range(max(0, offsets[passages[p]]), min(last, offsets[passages[p] + 1])):
            code = max(0, min(np.int64(codes[row]), top))
            for j in range(width):
                best[j] = max(best[j], S[code, j])
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
