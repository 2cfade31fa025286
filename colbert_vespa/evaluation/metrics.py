"""Ranking metrics of one query, and metrics by name, such as `ndcg@10`, over the rankings of many queries.

`ranking` holds ids, best first; `judged` maps an id to its relevance.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from colbert_vespa.evaluation.collection import Qrels
from late_interaction.errors import UsageError

__all__ = [
    "METRICS",
    "STANDARD",
    "Metric",
    "Rankings",
    "average_precision_at_k",
    "means",
    "ndcg_at_k",
    "parse_metric",
    "percentile",
    "recall_at_k",
    "reciprocal_rank_at_k",
]

Rankings = Mapping[str, Sequence[str]]


def ndcg_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Return nDCG with linear gain and log2 discount, as trec_eval's ndcg_cut; 0 if no id is relevant."""
    gains = sorted((value for value in judged.values() if value > 0), reverse=True)[:k]
    ideal = sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
    found = sum(max(judged.get(id_, 0.0), 0.0) / math.log2(rank + 2) for rank, id_ in enumerate(ranking[:k]))
    return found / ideal if ideal else 0.0


def reciprocal_rank_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Return 1 / rank of the first relevant id among the first k; 0.0 if there is none."""
    for rank, id_ in enumerate(ranking[:k], start=1):
        if judged.get(id_, 0.0) > 0:
            return 1.0 / rank
    return 0.0


def recall_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Return the share of the relevant ids among the first k; 0.0 if no id is relevant."""
    relevant = {id_ for id_, value in judged.items() if value > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def average_precision_at_k(ranking: Sequence[str], judged: Mapping[str, float], k: int) -> float:
    """Return the mean, over all relevant documents, of the precision where each is found; trec_eval's map_cut."""
    relevant = sum(value > 0 for value in judged.values())
    found, total = 0, 0.0
    for rank, id_ in enumerate(ranking[:k], start=1):
        if judged.get(id_, 0.0) > 0:
            found += 1
            total += found / rank
    return total / relevant if relevant else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile, `share` in (0, 1]."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


METRICS: dict[str, Callable[[Sequence[str], Mapping[str, float], int], float]] = {
    "ndcg": ndcg_at_k,
    "mrr": reciprocal_rank_at_k,
    "recall": recall_at_k,
    "map": average_precision_at_k,
}
MOST = 1000
_NAME = re.compile(r"([a-z]+)@(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Metric:
    """One of METRICS over the first k ids."""

    name: str
    k: int

    @property
    def key(self) -> str:
        """Return the name of the metric in results, such as `ndcg_at_10`."""
        return f"{self.name}_at_{self.k}"

    def values(self, rankings: Rankings, qrels: Qrels, queries: Sequence[str]) -> list[float]:
        """Return one value for each query; 0 for a query without a ranking."""
        return [self.of(rankings.get(query, ()), qrels.get(query, {})) for query in queries]

    def of(self, ranking: Sequence[str], judged: Mapping[str, float]) -> float:
        """Return the value of one query."""
        return METRICS[self.name](ranking, judged, self.k)


STANDARD = (Metric("ndcg", 10), Metric("mrr", 10), Metric("recall", 100), Metric("map", 100))


def parse_metric(text: str) -> Metric:
    """Return the metric that a text such as `ndcg@20` names.

    Raises:
        UsageError: If the text does not name a metric.
    """
    found = _NAME.fullmatch(text.strip().lower())
    if not found or found[1] not in METRICS or not 1 <= int(found[2]) <= MOST:
        raise UsageError(f"--metric must be {', '.join(METRICS)} with a depth up to {MOST:,}, as ndcg@20, got {text!r}")
    return Metric(found[1], int(found[2]))


def means(metrics: Sequence[Metric], rankings: Rankings, qrels: Qrels, queries: Sequence[str]) -> dict[str, float]:
    """Return the mean over the queries, by key of the metric."""
    return {metric.key: float(np.mean(metric.values(rankings, qrels, queries))) for metric in metrics}
