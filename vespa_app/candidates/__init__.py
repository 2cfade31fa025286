"""How candidates are found before MaxSim: one strategy per file, one line per strategy in the table."""

from __future__ import annotations

from vespa_app.candidates.base import DocumentContext, QueryParts, Strategy, StrategyRequest
from vespa_app.candidates.bm25 import Bm25
from vespa_app.candidates.centroid import Centroid
from vespa_app.candidates.exhaustive import Exhaustive
from vespa_app.candidates.hybrid import Hybrid
from vespa_app.candidates.pooled import Pooled
from vespa_app.candidates.token import Token

__all__ = ["STRATEGIES", "DocumentContext", "QueryParts", "Strategy", "StrategyRequest"]

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (Centroid(), Token(), Pooled(), Bm25(), Hybrid(), Exhaustive())
}
