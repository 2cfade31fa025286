"""The loops of `lookup_kernels` in numpy, slower, for an install without the extra `local`. Signatures are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I16, I32, I64

__all__ = ["nearest_of_groups", "nearest_of_own"]

SINGLY = 256  # up to so many rows are looked up one by one; with more, many share a group


def nearest_of_groups(cells: NDArray[Any], starts: I64, near: I32, queries: I16, ids: I32, values: I32) -> None:
    """See `lookup_kernels`."""
    if len(queries) > SINGLY:
        _by_group(cells, starts, near, queries, ids, values)
        return
    for row, query in enumerate(queries.astype(np.float64)):
        numbers = np.concatenate([np.arange(starts[group], starts[group + 1]) for group in np.sort(near[row]).tolist()])
        products = cells[numbers].astype(np.float64) @ query  # of whole numbers: exact
        best = _best(products, ids.shape[1])
        ids[row, : len(best)], values[row, : len(best)] = numbers[best], products[best]


def nearest_of_own(
    cells: NDArray[Any], order: I32, firsts: I64, owners: I64, rows: I64, queries: I16, ids: I32, values: I32
) -> None:
    """See `lookup_kernels`."""
    known, starts, counts = np.unique(owners[rows], return_index=True, return_counts=True)
    for owner, start, count in zip(known.tolist(), starts.tolist(), counts.tolist(), strict=True):
        if owner >= 0:
            own, asked = order[firsts[owner] : firsts[owner + 1]], rows[start : start + count]
            S = queries[asked].astype(np.float64) @ cells[own].astype(np.float64).T
            best = S.argmax(axis=1)
            ids[asked], values[asked] = own[best], S[np.arange(count), best]


def _by_group(cells: NDArray[Any], starts: I64, near: I32, queries: I16, ids: I32, values: I32) -> None:
    room = ids.shape[1]
    best = np.full(ids.shape, -np.inf)
    pairs = np.argsort(near, axis=None, kind="stable")
    groups = near.ravel()[pairs]
    edges = np.flatnonzero(np.diff(groups, prepend=-1, append=-1))
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        asked, numbers = pairs[first:last] // near.shape[1], np.arange(starts[groups[first]], starts[groups[first] + 1])
        S = queries[asked].astype(np.float64) @ cells[numbers].astype(np.float64).T
        products = np.concatenate([best[asked], S], axis=1)
        names = np.concatenate([ids[asked], np.broadcast_to(numbers, S.shape).astype(np.int32)], axis=1)
        order = np.argsort(-products, axis=1, kind="stable")[:, :room]  # of equal ones the lower first
        best[asked], ids[asked] = np.take_along_axis(products, order, axis=1), np.take_along_axis(names, order, axis=1)
    values[np.isfinite(best)] = best[np.isfinite(best)]


def _best(products: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return places of the largest, best first; of equal ones the lower first."""
    least = np.partition(products, -count)[-count] if count < len(products) else -np.inf
    chosen = np.flatnonzero(products >= least)
    best: NDArray[np.int64] = chosen[np.argsort(-products[chosen], kind="stable")[:count]]
    return best
