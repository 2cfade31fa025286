"""Candidates `pooled`: one vector per passage, the normalised mean of its token vectors, in an HNSW graph."""

from __future__ import annotations

import numpy as np

from late_interaction.array_types import Matrix
from vespa_app.candidates.base import (
    BASE_PROFILE,
    DocumentContext,
    QueryParts,
    Strategy,
    StrategyRequest,
    first_phase,
    hnsw_lines,
    rerank_parameters,
    second_phase,
    vector_hex,
)
from vespa_app.settings import AppSettings

__all__ = ["SCORE", "PooledCandidates", "nearest", "pool"]

FIELD = "pooled"
SCORE = f"closeness(field, {FIELD})"


def pool(rows: Matrix) -> Matrix:
    """`[n, d]` -> `[d]`, the mean of the rows at length 1 (without a direction it is the first axis: cosine needs one)."""
    mean: Matrix = np.asarray(rows, np.float32).sum(axis=0) / max(1, len(rows))
    length = float(np.linalg.norm(mean))
    if length > 0:
        return np.asarray(mean / length, np.float32)
    axis = np.zeros_like(mean)
    axis[0] = 1
    return axis


def nearest(request: StrategyRequest) -> str:
    return f"({{totalTargetHits:{request.targets}}}nearestNeighbor({FIELD}, qp))"


class PooledCandidates(Strategy):
    name = "pooled"
    about = "candidates near the query in one vector per passage (HNSW); MaxSim over the best"
    own_fields = (FIELD,)

    def fields(self, settings: AppSettings) -> str:
        return f"""\
        field {FIELD} type tensor<float>(x[{settings.dim}]) {{
            indexing: attribute | index
{hnsw_lines(settings.hnsw_links, settings.hnsw_explore, "prenormalized-angular")}        }}
"""

    def profile(self, settings: AppSettings) -> str:
        return f"""\
    rank-profile {self.name} inherits {BASE_PROFILE} {{
        inputs {{
            query(qp) tensor<float>(x[{settings.dim}])
        }}
{first_phase(settings, self.name, SCORE)}{second_phase(settings, self.name)}    }}
"""

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        return {FIELD: {"values": vector_hex(pool(vectors))}}

    def query(self, request: StrategyRequest) -> QueryParts:
        parameters = rerank_parameters(request) | {"input.query(qp)": {"values": vector_hex(pool(request.rows))}}
        return QueryParts(nearest(request), parameters, self.name)
