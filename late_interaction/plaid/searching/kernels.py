"""Compiled loops of a search's first stages.

Shapes: C centroids, q query rows, P passages. Every index that comes from a file is checked against its array, so that a
damaged file cannot read foreign memory.
"""

from __future__ import annotations

import numpy as np

from late_interaction.array_types import F32, I32, I64, U8, Codes
from late_interaction.compiling import FAST, compiler

__all__ = ["approximate_scores", "collect_candidates", "column_ranges", "round_scores", "top_centroids"]

_jit = compiler(__file__)
_fast = compiler(__file__, fastmath=FAST)


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
