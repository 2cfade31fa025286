"""The best centroids of each query row, out of scores that are there already, and the weighted sets that ask for them. Compiled
loops: building a request from given scores has to stay well under a millisecond (benchmarks/query.py)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I64, Matrix
from late_interaction.extras import required

with required("local", "a compiled loop"):
    import numba

__all__ = ["best_centroids", "weighted_sets"]

_DIGITS = 19  # of the greatest long


def best_centroids(scores: Matrix, probes: int) -> I64:
    """`[q, probes]`: ids of the best centroids of each row of `scores [q, C]`, best first; of equal scores the lower ids first.
    probes: at most C."""
    best = np.empty((len(scores), probes), np.int64)
    _best(np.ascontiguousarray(scores, np.float32), best)
    return best


def weighted_sets(ids: I64, weights: I64) -> list[str]:
    """`{id:weight,...}` of each row of two `[q, M]`, all numbers at least 0."""
    text = np.empty((len(ids), ids.shape[1] * 2 * (_DIGITS + 1) + 1), np.uint8)
    ends = np.empty(len(ids), np.int64)
    _write(ids, weights, text, ends)
    return [row[:end].tobytes().decode("ascii") for row, end in zip(text, ends.tolist(), strict=True)]


@numba.njit("int64(int64, uint8[::1], int64)", cache=True, nogil=True)
def _write_number(number: int, text: NDArray[np.uint8], place: int) -> int:
    """Returns the place behind it."""
    end, rest = place + 1, number
    while rest > 9:
        rest //= 10
        end += 1
    rest = number
    for digit in range(end - 1, place - 1, -1):
        text[digit] = 48 + rest % 10
        rest //= 10
    return end


@numba.njit("void(int64[:,::1], int64[:,::1], uint8[:,::1], int64[::1])", cache=True, nogil=True)
def _write(ids: I64, weights: I64, text: NDArray[np.uint8], ends: I64) -> None:
    for row in range(ids.shape[0]):
        line, place = text[row], 0
        for pair in range(ids.shape[1]):
            line[place] = 44 if pair else 123  # comma, opening brace
            place = _write_number(ids[row, pair], line, place + 1)
            line[place] = 58  # colon
            place = _write_number(weights[row, pair], line, place + 1)
        line[place] = 125  # closing brace
        ends[row] = place + 1


@numba.njit("void(float32[:,::1], int64[:,::1])", cache=True, nogil=True)
def _best(scores: Matrix, best: I64) -> None:
    """A centroid is compared with the last of the best so far, and moves up from there where it is better."""
    probes = best.shape[1]
    values = np.empty(probes, np.float32)
    for row in range(scores.shape[0]):
        similarities, found = scores[row], best[row]
        count = 0
        for id_ in range(similarities.shape[0]):
            value = similarities[id_]
            if count == probes:
                if not value > values[probes - 1]:
                    continue
                place = probes - 1
            else:
                place = count
                count += 1
            while place > 0 and value > values[place - 1]:
                values[place] = values[place - 1]
                found[place] = found[place - 1]
                place -= 1
            values[place] = value
            found[place] = id_
