"""How candidates are found before MaxSim: one strategy per file, one line per strategy in the table."""

from __future__ import annotations

from vespa_app.candidates.base import DocumentContext, QueryParts, Strategy, StrategyRequest, declared_fields
from vespa_app.candidates.bm25 import Bm25Candidates
from vespa_app.candidates.centroid import CentroidCandidates
from vespa_app.candidates.dense import DenseCandidates
from vespa_app.candidates.exhaustive import ExhaustiveCandidates
from vespa_app.candidates.hybrid import HybridCandidates
from vespa_app.candidates.joined import JoinedCandidates, joined_parts
from vespa_app.candidates.pooled import PooledCandidates
from vespa_app.candidates.token import TokenCandidates
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import parts_of

__all__ = [
    "STRATEGIES", "DocumentContext", "QueryParts", "Strategy", "StrategyRequest", "needed_encoding", "strategies_of",
    "strategy_of",
]  # fmt: skip

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        CentroidCandidates(),
        TokenCandidates(),
        PooledCandidates(),
        Bm25Candidates(),
        DenseCandidates(),
        HybridCandidates(),
        ExhaustiveCandidates(),
    )
}


def strategy_of(candidates: str) -> Strategy:
    """Return the strategy of a name, or of several joined by `+`."""
    parts = parts_of(candidates)
    return STRATEGIES[candidates] if len(parts) == 1 else JoinedCandidates(parts)


def strategies_of(settings: AppSettings) -> list[Strategy]:
    """Return all strategies that an index has fields and rank profiles for.

    These are the ones that its candidates name, alone or joined, and if several can be joined, the one that joins them.
    """
    names = dict.fromkeys(part for candidates in settings.candidates for part in parts_of(candidates))
    joined = [JoinedCandidates()] if len(joined_parts(settings)) > 1 else []
    return [*(STRATEGIES[name] for name in names), *joined]


def needed_encoding(settings: AppSettings) -> str:
    """Return the encoding of the one vector per passage; empty if no strategy uses one."""
    if any(part not in STRATEGIES for candidates in settings.candidates for part in parts_of(candidates)):
        return ""
    pooled = set(PooledCandidates.own_fields)
    has = any(pooled & declared_fields(strategy, settings) for strategy in strategies_of(settings))
    return settings.one_vector.encoding if has else ""
