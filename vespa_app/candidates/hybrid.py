"""Candidates `hybrid`: what `centroid` (or `pooled`, in an application without it) and `bm25` find, ordered by reciprocal
rank fusion of MaxSim and BM25.

The first phase puts both scores on one scale, so that what either finds is reranked; the fusion is made over the whole
cluster's candidates, in the global phase, and is the score of a hit: weight / (60 + rank) of each order. The match features
`max_sim` and `words` have its MaxSim and BM25.
"""

from __future__ import annotations

from late_interaction.array_types import Matrix
from vespa_app.candidates.base import (
    BASE_PROFILE,
    CANDIDATE_SCORE,
    MAXSIM,
    DocumentContext,
    Parameter,
    QueryParts,
    Strategy,
    StrategyRequest,
    drop_limit,
    explained_profile,
    first_phase,
    second_phase,
)
from vespa_app.candidates.bm25 import BM25_SCORE, Bm25Candidates
from vespa_app.candidates.centroid import SCORE, WEIGHT_SCALE, CentroidCandidates
from vespa_app.candidates.pooled import FIELD, PooledCandidates
from vespa_app.settings import AppSettings

__all__ = ["WORDS", "HybridCandidates"]

WORDS = "words"  # match feature: BM25

FEATURES = f" {MAXSIM} {WORDS}"
WEIGHTS = ("maxsim_weight", "bm25_weight")  # inputs of a query
HALF = 10  # a BM25 score that counts half of the most


class HybridCandidates(Strategy):
    name = "hybrid"
    about = "candidates of several kinds, joined by reciprocal rank fusion"
    needs_text = True
    phases = ("first", "second", "global")

    def fields(self, settings: AppSettings) -> str:
        return _dense(settings).fields(settings)

    def profile(self, settings: AppSettings) -> str:
        pooled = f"            query(qp) tensor<float>(x[{settings.dim}])\n"
        by_centroid = isinstance(_dense(settings), CentroidCandidates)
        meaning = f"{SCORE} * query(scale)" if by_centroid else f"closeness(field, {FIELD})"
        both = f"{meaning} + {WORDS} / ({WORDS} + {HALF})"
        weights = "".join(f"            query({name}) double: 1.0\n" for name in WEIGHTS)
        orders = zip(WEIGHTS, (MAXSIM, WORDS), strict=True)
        fusion = " + ".join(f"query({weight}) * reciprocal_rank({score})" for weight, score in orders)
        phases = first_phase(settings, self.name, both) + second_phase(settings, self.name)
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
        inputs {{
{"            query(scale) double" + chr(10) if by_centroid else pooled}{weights}        }}
        function {WORDS}() {{
            expression: {BM25_SCORE}
        }}
{phases}        global-phase {{
{drop_limit(settings, self.name, "global")}            rerank-count: {settings.rerank}
            expression: {fusion}
        }}
        match-features: {CANDIDATE_SCORE}{FEATURES}
    }}
"""

    def explained(self, settings: AppSettings) -> str:
        return explained_profile(self.name, FEATURES)

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        return _dense(context.settings).document_fields(vectors, context) if context.settings else {}

    def query(self, request: StrategyRequest) -> QueryParts:
        dense, words = _dense(request.settings).query(request), Bm25Candidates().query(request)
        parameters: dict[str, Parameter] = {**dense.parameters, **words.parameters}
        parameters["ranking.globalPhase.rerankCount"] = request.rerank
        parameters |= {f"input.query({name})": weight for name, weight in zip(WEIGHTS, request.weights, strict=True)}
        if isinstance(_dense(request.settings), CentroidCandidates):
            most = float(request.lists[1][:, 0].sum())
            parameters["input.query(scale)"] = 1 / (WEIGHT_SCALE * max(1e-3, most))
        return QueryParts(f"({dense.yql_where} or {words.yql_where})", parameters, self.name)


def _dense(settings: AppSettings) -> CentroidCandidates | PooledCandidates:
    return CentroidCandidates() if "centroid" in settings.candidates else PooledCandidates()
