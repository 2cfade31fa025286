"""The loops of `best_centroids`, in numpy: slower, for an install without the extra `local`. Signatures are the same."""

from __future__ import annotations

import numpy as np

from late_interaction.array_types import I64, Matrix

__all__ = ["best_centroids", "weighted_sets"]


def best_centroids(scores: Matrix, probes: int) -> I64:
    """`[q, probes]`: ids of the best centroids of each row of `scores [q, C]`, best first; of equal scores the lower ids first.
    probes: at most C."""
    best = np.empty((len(scores), probes), np.int64)
    last = np.partition(scores, -probes, axis=1)[:, -probes]
    for row, least, chosen in zip(scores, last, best, strict=True):
        ids = np.flatnonzero(row >= least)
        chosen[:] = ids[np.argsort(-row[ids], kind="stable")[:probes]]
    return best


def weighted_sets(ids: I64, weights: I64) -> list[str]:
    """`{id:weight,...}` of each row of two `[q, M]`, all numbers at least 0."""
    rows = zip(ids.tolist(), weights.tolist(), strict=True)
    return ["{" + ",".join([f"{id_}:{weight}" for id_, weight in zip(*row, strict=True)]) + "}" for row in rows]
