"""Search by dense vectors: the passages with the greatest inner products, of those that a filter selects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from late_interaction.array_types import Places, Vector
from late_interaction.filters import Filter
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
) -> dict[str, float]:
    """Ids and scores of the k best of the passages that are selected and have rows: best first, equal ones in order of
    insertion."""
    found: list[Places] = []
    scores: list[Vector] = []
    for part, mask in zip(snapshot.living, snapshot.select(where, ids), strict=True):
        rows = np.flatnonzero(mask)
        of_rows = part.segment.dense[name].scores(vector, rows)
        best = _best(rows, of_rows, k)
        found.append(rows[best] + part.base)
        scores.append(of_rows[best])
    places, every = np.concatenate([np.zeros(0, np.int64), *found]), np.concatenate([np.zeros(0, np.float32), *scores])
    best = _best(places, every, k)
    return _named(snapshot, places[best], every[best])


def _best(places: Places, scores: Vector, k: int) -> Places:
    """Which of them are the k best, best first; equal ones by their places."""
    chosen = np.arange(len(scores))
    if len(scores) > k:
        chosen = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    order: Places = chosen[np.lexsort((places[chosen], -scores[chosen]))][:k]
    return order


def _named(snapshot: Snapshot, places: Places, scores: Vector) -> dict[str, float]:
    named = {}
    for place, score in zip(places.tolist(), scores.tolist(), strict=True):
        part, row = snapshot.at(place)
        named[part.segment.ids[row]] = score
    return named


def dense_scores(snapshot: Snapshot, name: str, vector: Vector, passage_ids: Sequence[str]) -> dict[str, float]:
    """Inner products with the vectors of those passages; unknown ids are left out."""
    named = {}
    for id_ in passage_ids:
        if (found := snapshot.find(id_)) is not None:
            part, row = found
            named[id_] = float(part.segment.dense[name].scores(vector, np.array([row]))[0])
    return named
