"""Combine scores of several kinds into one, as Vespa's global phase does."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["fused"]

RANK_CONSTANT = 60.0  # Cormack, Clarke and Buettcher 2009; the same as in Vespa's reciprocal_rank
MIDDLE = 0.5  # for scores that are all equal, as in Vespa's normalize_linear


def fused(scores: Mapping[str, Mapping[str, float]], weights: Mapping[str, float], fusion: str = "rrf") -> dict[str, float]:
    """Return the fused score by passage id.

    Each weighted score adds by `rrf` weight / (60 + rank), by `sum` weight * (score - least) / (greatest - least).

    Args:
        scores: by name, finite scores of each passage that has one; a passage without words of the query has no BM25.
        weights: weight by name.
        fusion: rrf or sum.
    """
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
