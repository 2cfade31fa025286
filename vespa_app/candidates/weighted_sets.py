"""Weighted sets that select the lists of each query row, as text, by compiled loops.

Building a request must stay well under a millisecond (benchmarks/query.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I32, I64
from late_interaction.extras import required

with required("local", "a compiled loop"):
    import numba

__all__ = ["weighted_sets"]

_DIGITS = 19  # digits of the greatest long


def weighted_sets(ids: I32, weights: I64) -> list[str]:
    """Return `{id:weight,...}` of each row of two `[q, M]`, all numbers at least 0."""
    text = np.empty((len(ids), ids.shape[1] * 2 * (_DIGITS + 1) + 1), np.uint8)
    ends = np.empty(len(ids), np.int64)
    _write(ids, weights, text, ends)
    return [row[:end].tobytes().decode("ascii") for row, end in zip(text, ends.tolist(), strict=True)]


@numba.njit("int64(int64, uint8[::1], int64)", cache=True, nogil=True)
def _write_number(number: int, text: NDArray[np.uint8], place: int) -> int:
    """Write a number; return the place after it."""
    end, rest = place + 1, number
    while rest > 9:
        rest //= 10
        end += 1
    rest = number
    for digit in range(end - 1, place - 1, -1):
        text[digit] = 48 + rest % 10
        rest //= 10
    return end


@numba.njit("void(int32[:,::1], int64[:,::1], uint8[:,::1], int64[::1])", cache=True, nogil=True)
def _write(ids: I32, weights: I64, text: NDArray[np.uint8], ends: I64) -> None:
    for row in range(ids.shape[0]):
        line, place = text[row], 0
        for pair in range(ids.shape[1]):
            line[place] = 44 if pair else 123  # comma, opening brace
            place = _write_number(ids[row, pair], line, place + 1)
            line[place] = 58  # colon
            place = _write_number(weights[row, pair], line, place + 1)
        line[place] = 125  # closing brace
        ends[row] = place + 1
