"""Scores of several kinds made one, as Vespa's global phase does it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["fused"]

RANK_CONSTANT = 60.0  # Cormack, Clarke and Buettcher 2009; Vespa's reciprocal_rank has the same
MIDDLE = 0.5  # of scores that are all the same, as Vespa's normalize_linear has it


def fused(scores: Mapping[str, Mapping[str, float]], weights: Mapping[str, float], fusion: str = "rrf") -> dict[str, float]:
    """By passage id, what each score adds that has a weight: by `rrf` weight / (60 + rank), by `sum` weight * (score - least) /
    (greatest - least). scores: by name, finite ones of each passage that has one; a passage without words of the query has no
    BM25."""
    parts_of = _scaled if fusion == "sum" else _reciprocal_ranks
    found: dict[str, float] = {}
    for name, weight in weights.items():
        for id_, part in parts_of(scores.get(name, {})).items():
            found[id_] = found.get(id_, 0.0) + weight * part
    return found


def _reciprocal_ranks(scores: Mapping[str, float]) -> dict[str, float]:
    order = sorted(scores, key=lambda id_: (-scores[id_], id_))
    return {id_: 1 / (RANK_CONSTANT + rank) for rank, id_ in enumerate(order, start=1)}


def _scaled(scores: Mapping[str, float]) -> dict[str, float]:
    least, greatest = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    if not greatest > least:
        return dict.fromkeys(scores, MIDDLE)
    return {id_: (score - least) / (greatest - least) for id_, score in scores.items()}
