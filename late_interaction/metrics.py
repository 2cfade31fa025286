"""Ranking metrics, one function each, over one query: `ranking` is ids best first, `judged` maps id to relevance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["average_precision_at_k", "ndcg_at_k", "overlap_at_k", "percentile", "recall_at_k", "reciprocal_rank_at_k"]


def ndcg_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Linear gain, log2 discount, as trec_eval's ndcg_cut. 0 where nothing is relevant."""
    gains = sorted((value for value in judged.values() if value > 0), reverse=True)[:k]
    ideal = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
    found = sum(max(judged.get(id_, 0.0), 0.0) / math.log2(rank + 2) for rank, id_ in enumerate(ranking[:k]))
    return found / ideal if ideal else 0.0


def reciprocal_rank_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    for rank, id_ in enumerate(ranking[:k], start=1):
        if judged.get(id_, 0.0) > 0:
            return 1.0 / rank
    return 0.0


def recall_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    relevant = {id_ for id_, value in judged.items() if value > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def average_precision_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Mean, over all relevant documents, of the precision where each is found; trec_eval's map_cut."""
    relevant = sum(value > 0 for value in judged.values())
    found, total = 0, 0.0
    for rank, id_ in enumerate(ranking[:k], start=1):
        if judged.get(id_, 0.0) > 0:
            found += 1
            total += found / rank
    return total / relevant if relevant else 0.0


def overlap_at_k(ranking: Sequence[str], reference: Sequence[str], k: int) -> float:
    """Share of the reference's first k that are among the ranking's first k: recall against exact search."""
    wanted = set(reference[:k])
    return len(wanted.intersection(ranking[:k])) / len(wanted) if wanted else 1.0


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile, `share` in (0, 1]."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
