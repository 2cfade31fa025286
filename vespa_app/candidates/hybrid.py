"""Candidates `hybrid`: the union of what the nearest pooled vectors and BM25 find, fused by reciprocal rank.

Fusion is of the first stage: both lists are found by one query, their ranks fused into `candidate_score` by the second stage's
order. The relevance is the MaxSim, as everywhere.
"""

from __future__ import annotations

from vespa_app.candidates.base import (
    BASE_PROFILE,
    CANDIDATE_SCORE,
    DocumentContext,
    Floats,
    QueryParts,
    StrategyRequest,
    rerank_parameters,
    second_phase,
)
from vespa_app.candidates.bm25 import BM25_SCORE, words
from vespa_app.candidates.pooled import FIELD, Pooled, nearest, pool, vector_hex
from vespa_app.settings import AppSettings

__all__ = ["Hybrid"]
