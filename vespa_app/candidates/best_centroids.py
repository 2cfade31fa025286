"""The best centroids of each query row, out of scores that are there already. A compiled loop: building a request from given
scores has to stay well under a millisecond (benchmarks/query.py)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["best_centroids"]

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def best_centroids(scores: Floats, probes: int) -> Ids:
    """`[q, probes]`: ids of the best centroids of each row of `scores [q, C]`, best first; of equal scores the lower ids first.
    probes: at most C."""
    best = np.empty((len(scores), probes), np.int64)
    _best(np.ascontiguousarray(scores, np.float32), best)
    return best


@numba.njit("void(float32[:,::1], int64[:,::1])", cache=True, nogil=True)
def _best(scores: Floats, best: Ids) -> None:
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
