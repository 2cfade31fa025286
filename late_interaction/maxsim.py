"""Exact MaxSim in plain numpy: the oracle that every engine is compared with.

    score(Q, D) = sum over query rows of the largest dot product with any document row

Shapes: `Q [q, d]` query rows, `D [t, d]` document rows, `S [q, t]` similarities, all float32.
A query without rows scores 0; a passage without rows scores -inf, so that it never ranks above one that has some.
Khattab and Zaharia, "ColBERT" (2020), arXiv 2004.12832.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from late_interaction.array_types import Matrix
from late_interaction.runs import runs

__all__ = ["maxsim", "maxsim_many", "similarities"]

BLOCK_CELLS = 1 << 22  # similarities held at a time: 16 MiB


def similarities(Q: Matrix, D: Matrix) -> Matrix:
    """Return `S [q, t]`: the dot product of every query row with every document row."""
    _check(Q, D)
    S: Matrix = Q @ D.T
    return S


def maxsim(Q: Matrix, D: Matrix) -> float:
    """Return the score of one passage `D [t, d]`; -inf if it has no rows.

    Args:
        Q: query rows `[q, d]`.
        D: document rows `[t, d]`.

    Raises:
        ValueError: if Q and D are not matrices of the same width.
    """
    _check(Q, D)
    if not len(D):
        return float("-inf")
    return float(_best(Q, D).sum())


def maxsim_many(Q: Matrix, vectors: Matrix, lengths: ArrayLike) -> Matrix:
    """Return the scores `[n]` of n passages.

    Works in blocks, so memory beyond the inputs stays near 16 MiB for any number of passages or rows.

    Args:
        Q: query rows `[q, d]`.
        vectors: `[T, d]`, the rows of all passages one after the other.
        lengths: `[n]`, rows of each passage.

    Raises:
        ValueError: if shapes disagree or the lengths do not add up to T.
    """
    _check(Q, vectors)
    counts = np.asarray(lengths, np.int64)
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != len(vectors):
        raise ValueError(f"lengths must be [n], not negative, and add up to {len(vectors)} rows")
    scores = np.full(len(counts), -np.inf, np.float32)
    ends = np.cumsum(counts)
    for run in runs(counts, max(1, BLOCK_CELLS // max(1, len(Q)))):
        first, last = run.start, run.stop
        start, stop = int(ends[first] - counts[first]), int(ends[last - 1])
        if last == first + 1:
            if stop > start:
                scores[first] = _best(Q, vectors[start:stop]).sum()
        else:
            filled = first + np.flatnonzero(counts[first:last])
            if len(filled):
                starts = ends[filled] - counts[filled] - start
                scores[filled] = np.maximum.reduceat(vectors[start:stop] @ Q.T, starts, axis=0).sum(axis=1)
    return scores


def _best(Q: Matrix, D: Matrix) -> Matrix:
    """Return for each query row `[q]` the largest similarity over the rows of D (at least one), in blocks of rows."""
    rows_at_once = max(1, BLOCK_CELLS // max(1, len(Q)))
    best: Matrix = np.full(len(Q), -np.inf, np.float32)
    for start in range(0, len(D), rows_at_once):
        np.maximum(best, (D[start : start + rows_at_once] @ Q.T).max(axis=0), out=best)
    return best


def _check(Q: Matrix, D: Matrix) -> None:
    if Q.ndim != 2 or D.ndim != 2 or Q.shape[1] != D.shape[1]:
        raise ValueError(f"Q and D must be matrices of the same width, got shapes {Q.shape} and {D.shape}")
