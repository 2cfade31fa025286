"""The loops of `lookup_kernels`, in numpy: slower, for an install without the extra `local`. Signatures are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I16, I32, I64

__all__ = ["nearest_of_groups", "nearest_of_own"]


def nearest_of_groups(cells: NDArray[Any], starts: I64, near: I32, queries: I16, ids: I32, values: I32) -> None:
    """As in `lookup_kernels`."""
    for row, query in enumerate(queries.astype(np.float64)):
        numbers = np.concatenate([np.arange(starts[group], starts[group + 1]) for group in near[row].tolist()])
        products = cells[numbers].astype(np.float64) @ query  # of whole numbers: exact
        best = _best(products, ids.shape[1])
        ids[row, : len(best)], values[row, : len(best)] = numbers[best], products[best]


def nearest_of_own(
    cells: NDArray[Any], order: I32, firsts: I64, owners: I64, rows: I64, queries: I16, ids: I32, values: I32
) -> None:
    """As in `lookup_kernels`."""
    known, starts, counts = np.unique(owners[rows], return_index=True, return_counts=True)
    for owner, start, count in zip(known.tolist(), starts.tolist(), counts.tolist(), strict=True):
        if owner >= 0:
            own, asked = order[firsts[owner] : firsts[owner + 1]], rows[start : start + count]
            S = queries[asked].astype(np.float64) @ cells[own].astype(np.float64).T
            best = S.argmax(axis=1)
            ids[asked], values[asked] = own[best], S[np.arange(count), best]


def _best(products: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Places of the largest, best first; of equal ones the lower first."""
    least = np.partition(products, -count)[-count] if count < len(products) else -np.inf
    chosen = np.flatnonzero(products >= least)
    best: NDArray[np.int64] = chosen[np.argsort(-products[chosen], kind="stable")[:count]]
    return best
