"""Metrics by name, as `ndcg@10`, over the rankings of many queries."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from late_interaction.errors import UsageError
from late_interaction.metrics import average_precision_at_k, ndcg_at_k, recall_at_k, reciprocal_rank_at_k

__all__ = ["METRICS", "STANDARD", "Metric", "means", "parse_metric"]

Qrels = Mapping[str, Mapping[str, float]]
Rankings = Mapping[str, Sequence[str]]
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
        """As a result names it: `ndcg_at_10`."""
        return f"{self.name}_at_{self.k}"

    def values(self, rankings: Rankings, qrels: Qrels, queries: Sequence[str]) -> list[float]:
        """One for each query; a query without ranking has 0."""
        measure = METRICS[self.name]
        return [measure(rankings.get(query, ()), qrels.get(query, {}), self.k) for query in queries]


STANDARD = (Metric("ndcg", 10), Metric("mrr", 10), Metric("recall", 100), Metric("map", 100))


def parse_metric(text: str) -> Metric:
    """`ndcg@20`. Raises: UsageError."""
    found = _NAME.fullmatch(text.strip().lower())
    if not found or found[1] not in METRICS or not 1 <= int(found[2]) <= MOST:
        raise UsageError(f"--metric must be {', '.join(METRICS)} with a depth up to {MOST:,}, as ndcg@20, got {text!r}")
    return Metric(found[1], int(found[2]))


def means(metrics: Sequence[Metric], rankings: Rankings, qrels: Qrels, queries: Sequence[str]) -> dict[str, float]:
    """By key, the mean over the queries."""
    return {metric.key: float(np.mean(metric.values(rankings, qrels, queries))) for metric in metrics}
