"""Search by dense vectors: of the selected passages, those with the greatest inner products."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from late_interaction.array_types import Places, Vector
from late_interaction.filters import Filter
from late_interaction.plaid.store.nearest import best_of
from late_interaction.plaid.store.snapshot import Snapshot

__all__ = ["dense_scores", "dense_search"]


def dense_search(
    snapshot: Snapshot,
    name: str,
    vector: Vector,
    k: int,
    *,
    where: Filter | None = None,
    ids: Iterable[str] | None = None,
    exact: bool = False,
) -> dict[str, float]:
    """Return ids and scores of the k best of the selected passages that have rows.

    The best come first, equal ones in order of insertion.
    """
    found: list[Places] = []
    scores: list[Vector] = []
    for part, mask in zip(snapshot.living, snapshot.select(where, ids), strict=True):
        rows, of_rows = part.segment.dense[name].nearest(vector, k, mask, exact=exact)
        found.append(rows + part.base)
        scores.append(of_rows)
    places, every = np.concatenate([np.zeros(0, np.int64), *found]), np.concatenate([np.zeros(0, np.float32), *scores])
    best = best_of(places, every, k)
    return _named(snapshot, places[best], every[best])


def _named(snapshot: Snapshot, places: Places, scores: Vector) -> dict[str, float]:
    named = {}
    for place, score in zip(places.tolist(), scores.tolist(), strict=True):
        part, row = snapshot.at(place)
        named[part.segment.ids[row]] = score
    return named


def dense_scores(snapshot: Snapshot, name: str, vector: Vector, passage_ids: Sequence[str]) -> dict[str, float]:
    """Return inner products with the vectors of those passages; unknown ids are left out."""
    named = {}
    for id_ in passage_ids:
        if (found := snapshot.find(id_)) is not None:
            part, row = found
            named[id_] = float(part.segment.dense[name].scores(vector, np.array([row]))[0])
    return named
