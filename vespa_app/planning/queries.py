"""Milliseconds of a query by each strategy: its first stage, and MaxSim of what it reranks.

The estimate is for a full node, and the whole rerank count is charged to it, so it never falls as documents grow. Beside it,
`shared_cost` gives the cost when a node reranks only its share, which is how Vespa divides totalRerankCount.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from late_interaction.codebook_training import LIST_LENGTH, MIN_PER_CENTROID
from vespa_app.planning.request import Figure, PlanRequest
from vespa_app.settings.application_settings import DEFAULT_WEIGHTS, parts_of

__all__ = ["query_cost", "shared_cost"]

MAXSIM = "MaxSim 2.1M token vectors/s: one thread of a 2-core machine, SciFact, 32 rows of 128 dimensions, bfloat16"
DECODING = (
    "decoding: docs/performance, 2.3 us a token vector at 4 bits (docs 6,776 ms for 340, scifact 2,997 for 200: 15 to 20"
    " times bfloat16), .67 at 2 (48 ms for 166); 1 bit is not measured, .4 by the number of its terms"
)
CENTROID = (
    "lists: SciFact and docs on a real node, 16 to 64 of 8,192, 7.8M postings/s; their length: docs/performance, 1.5 times"
    " the average was counted for 60,000 passages, 1.9 for a million; centroids: the bundle's, or those of `export --documents`"
)
POOLED = "HNSW: SciFact on a real node; assumed to grow with the logarithm of the passages"
BM25 = (
    "words: docs/performance, bm25 without its reranking took 8 ms among 60,000 passages and 9 among 5,183; assumed to grow"
    " with the square root beyond"
)
ROWS_NEAREST = (
    "rows: docs/performance, `token` with binary took 14 ms for 9 rows among 98,000 token vectors, reranking included;"
    " other codecs and the logarithm are assumed"
)
DENSE = "HNSW: taken from `pooled` (SciFact on a real node); not measured of dense models"
SHARE = "Vespa's dispatcher gives each node its part of totalRerankCount: the count x its share of the documents, rounded up"
HYBRID = "twice the rerank: its match feature max_sim asks for each candidate's MaxSim again (docs 41 ms, scifact 70)"

TOKENS_PER_S = 2.1e6
MEASURED_ROWS, MEASURED_DIM = 32, 128  # of the measurement
DECODING_US = {1: 0.4, 2: 0.67, 4: 2.3}  # of a token vector of 128 dimensions, whatever the query
CENTROID_BASE_MS, POSTINGS_PER_S = 11.5, 7.8e6
LONGER = 1.9  # postings of a row's lists, relative to the average number of token vectors of a list; k-means: .9
POOLED_BASE_MS, POOLED_PASSAGES = 3.5, 5183
BM25_BASE_MS, BM25_PASSAGES = 8.0, 60_000
TOKEN_ROW_MS, TOKEN_VECTORS = 1.2, 98_000


@dataclass(frozen=True)
class _Stage:
    ms: float
    formula: str
    source: str


def query_cost(request: PlanRequest, name: str, here: float, prefix: str = "") -> Figure:
    """Return the cost of a query. here: passages that one node scores. prefix: of the figure's name."""
    if name == "exhaustive":
        stages = [_maxsim(request, here, f"{here:.4g} passages")]
    elif name == "hybrid" and request.weights and "maxsim" not in request.weights:
        stages = _first_stages(request, name, here)
    else:
        rerank = min(request.rerank, here)
        stages = [*_first_stages(request, name, here), _maxsim(request, rerank, f"rerank {rerank:.4g}")]
    if name == "hybrid" and "maxsim" in (request.weights or DEFAULT_WEIGHTS):
        last = stages[-1]
        stages[-1] = _Stage(2 * last.ms, f"2 x {last.formula}", f"{last.source}; {HYBRID}")
    formula = " + ".join(stage.formula for stage in stages)
    source = "; ".join(stage.source for stage in stages)
    return Figure(f"query, {prefix}{name}", sum(stage.ms for stage in stages), "ms", formula, source)


def shared_cost(request: PlanRequest, name: str, here: float, prefix: str = "") -> Figure | None:
    """Return the cost of a query if a node reranks its share of the candidates; None if that is all. here: see `query_cost`."""
    share = math.ceil(request.rerank * min(here, request.documents) / request.documents)
    cost = query_cost(dataclasses.replace(request, rerank=share), name, here, prefix)
    if cost.value == query_cost(request, name, here, prefix).value:
        return None
    return Figure(f"{cost.name}, shared", cost.value, cost.unit, f"the same with rerank {share}", SHARE)


def _first_stages(request: PlanRequest, name: str, here: float) -> list[_Stage]:
    if name == "hybrid":
        meaning = "centroid" if request.by_centroid else "pooled"
        parts = [meaning if score == "maxsim" else score for score in request.weights or DEFAULT_WEIGHTS]
        return [stage for part in parts for stage in _first_stages(request, part, here)]
    if len(parts_of(name)) > 1:
        return [stage for part in parts_of(name) for stage in _first_stages(request, part, here)]
    measured = _FIRST_STAGES.get(name)
    return [measured(request, here) if measured else _Stage(0.0, f"{name}, not measured", f"{name}: not measured")]


def _maxsim(request: PlanRequest, passages: float, what: str) -> _Stage:
    rows_us = 1e6 / TOKENS_PER_S * request.query_rows / MEASURED_ROWS * request.dim / MEASURED_DIM
    decoding_us = DECODING_US[request.residual_bits] * request.dim / MEASURED_DIM if request.codec == "residual" else 0.0
    ms = passages * request.stored * (rows_us + decoding_us) / 1000 / request.threads
    each = f"({rows_us:.3g} + {decoding_us:.3g} decoding)" if decoding_us else f"{rows_us:.3g}"
    source = f"{MAXSIM}; {DECODING}" if decoding_us else MAXSIM
    return _Stage(ms, f"{what} x {request.stored:g} tokens x {each} us / {request.threads} threads", source)


def _centroid(request: PlanRequest, here: float) -> _Stage:
    vectors, count = here * request.stored, request.centroid_count(here)
    postings = min(vectors, request.probes * _list_length(request, vectors, count) * LONGER)
    ms = CENTROID_BASE_MS + 1000 * request.query_rows * postings / POSTINGS_PER_S / request.threads
    formula = (
        f"{CENTROID_BASE_MS} + {request.query_rows} rows x {postings:.4g} postings of {request.probes} lists (of {count:,},"
        f" {LONGER} times the average) / {POSTINGS_PER_S:g} per s / {request.threads} threads"
    )
    return _Stage(ms, formula, CENTROID)


def _list_length(request: PlanRequest, vectors: float, count: int) -> float:
    """Return the token vectors of one centroid.

    The exporter's number of centroids doubles in steps, so lists are longest just before a step: this is the longest of any
    collection up to this size.
    """
    if request.centroids:
        return vectors / count
    return max(vectors / count, min(count / 128, 2 * LIST_LENGTH), 2 * MIN_PER_CENTROID)


def _pooled(request: PlanRequest, here: float) -> _Stage:
    ms = POOLED_BASE_MS * max(1.0, math.log(max(here, 2)) / math.log(POOLED_PASSAGES))
    return _Stage(ms, f"{POOLED_BASE_MS} x ln({here:.4g}) / ln({POOLED_PASSAGES})", POOLED)


def _dense(request: PlanRequest, here: float) -> _Stage:
    return dataclasses.replace(_pooled(request, here), source=DENSE)


def _bm25(request: PlanRequest, here: float) -> _Stage:
    ms = BM25_BASE_MS * math.sqrt(max(1.0, here / BM25_PASSAGES))
    return _Stage(ms, f"{BM25_BASE_MS} x sqrt({here:.4g} / {BM25_PASSAGES}), at least {BM25_BASE_MS}", BM25)


def _token(request: PlanRequest, here: float) -> _Stage:
    vectors = here * request.stored
    ms = request.query_rows * TOKEN_ROW_MS * max(1.0, math.log(max(vectors, 2)) / math.log(TOKEN_VECTORS))
    formula = f"{request.query_rows} rows x {TOKEN_ROW_MS} x ln({vectors:.4g}) / ln({TOKEN_VECTORS})"
    return _Stage(ms, formula, ROWS_NEAREST)


_FIRST_STAGES: Mapping[str, Callable[[PlanRequest, float], _Stage]] = {
    "centroid": _centroid,
    "token": _token,
    "pooled": _pooled,
    "bm25": _bm25,
    "dense": _dense,
}
