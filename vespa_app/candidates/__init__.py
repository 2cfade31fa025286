"""How candidates are found before MaxSim: one strategy per file, one line per strategy in the table."""

from __future__ import annotations

from vespa_app.candidates.base import DocumentContext, QueryParts, Strategy, StrategyRequest
from vespa_app.candidates.bm25 import Bm25Candidates
from vespa_app.candidates.centroid import CentroidCandidates
from vespa_app.candidates.exhaustive import ExhaustiveCandidates
from vespa_app.candidates.hybrid import HybridCandidates
from vespa_app.candidates.pooled import PooledCandidates
from vespa_app.candidates.token import TokenCandidates

__all__ = ["STRATEGIES", "DocumentContext", "QueryParts", "Strategy", "StrategyRequest"]

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        CentroidCandidates(),
        TokenCandidates(),
        PooledCandidates(),
        Bm25Candidates(),
        HybridCandidates(),
        ExhaustiveCandidates(),
    )
}
