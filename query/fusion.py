"""Reciprocal rank fusion of MaxSim and BM25, as Vespa's global phase has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["fused"]

RANK_CONSTANT = 60.0  # Cormack, Clarke and Buettcher 2009; Vespa's reciprocal_rank has the same


def fused(maxsim: Mapping[str, float], words: Sequence[tuple[str, float]], weights: Mapping[str, float]) -> dict[str, float]:
    """By passage id, weight / (60 + rank) of each order that it is in. words: ids and BM25 scores, best first."""
    order = sorted(maxsim, key=lambda id_: (-maxsim[id_], id_))
    scores = {id_: weights.get("maxsim", 0.0) / (RANK_CONSTANT + rank) for rank, id_ in enumerate(order, start=1)}
    for rank, (id_, _) in enumerate(words, start=1):
        scores[id_] = scores.get(id_, 0.0) + weights.get("bm25", 0.0) / (RANK_CONSTANT + rank)
    return scores
