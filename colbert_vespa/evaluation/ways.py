"""Search one index in every way on judged queries: by each score, by each as candidates of MaxSim, and fused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from colbert_vespa.evaluation.evaluating import AskedRun, EvaluationSettings, Judged, asked_run, compared
from colbert_vespa.evaluation.fitting import LEAST_QUERIES, FittedWeights, Way, fit_weights, record_scores
from colbert_vespa.evaluation.metrics import STANDARD, Metric, Rankings, means, percentile
from colbert_vespa.evaluation.runs import rankings_of
from colbert_vespa.evaluation.significance import PairedDifference
from late_interaction.dense import dense_encoders
from late_interaction.errors import UsageError
from late_interaction.progress import StepReport
from query import Client
from vespa_app.settings.application_settings import FUSIONS, parts_of

__all__ = ["MeasuredWay", "SearchWay", "WaysReport", "measure_rankings", "measure_ways", "ways_of", "with_vectors"]

MAXSIM, HYBRID, EXHAUSTIVE = "maxsim", "hybrid", "exhaustive"
RERANK = 200
FITTED = "fitted"  # the row whose weights come from the judgements


@dataclass(frozen=True, slots=True)
class SearchWay:
    """One way to search and to weigh scores.

    Attributes:
        candidates: Strategy, as in a search.
        fused: Strategies that candidates `hybrid` fuses.
        scores: Scores that the way reads, out of bm25, dense and maxsim.
        single: Whether one score alone ranks everything. The other ways are compared with these.
    """

    name: str
    candidates: str
    scores: tuple[str, ...]
    fused: Way | None = None
    single: bool = False


@dataclass(frozen=True)
class MeasuredWay:
    """Metrics of one way.

    Attributes:
        metrics: Means by the metric's key.
        differences: Differences to each single score, by its name and the metric's key.
        latency_ms: p50 and p95 in milliseconds of a search as deep as the metrics, with a query that is already encoded.
    """

    name: str
    scores: tuple[str, ...]
    metrics: Mapping[str, float]
    differences: Mapping[str, Mapping[str, PairedDifference]]
    latency_ms: Mapping[str, float]
    single: bool = False


@dataclass(frozen=True)
class WaysReport:
    """All ways measured on one collection.

    Attributes:
        rows: Ways in the order of `ways_of`, with `fitted` last.
        metric: Key of the metric that the weights are fitted to.
        fitted: The fitted weights; None if there are too few queries or no scores to weigh.
        rankings: Document ids by row and query.
    """

    collection: str
    passages: int
    queries: int
    metric: str
    rows: tuple[MeasuredWay, ...]
    fitted: FittedWeights | None
    rankings: Mapping[str, Rankings]

    def row(self, name: str) -> MeasuredWay | None:
        """Return the row of that name, or None."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def best(self) -> MeasuredWay:
        """Return the row with the greatest mean."""
        return max(self.rows, key=lambda row: row.metrics[self.metric])

    def to_json(self) -> dict[str, object]:
        """Return everything but the rankings, as it is written to JSON."""
        return {
            "collection": self.collection,
            "passages": self.passages,
            "queries": self.queries,
            "metric": self.metric,
            "rows": [asdict(row) for row in self.rows],
            "fitted": None if self.fitted is None else self.fitted.to_json(),
        }


def ways_of(strategies: Sequence[str]) -> list[SearchWay]:
    """Return the ways to search an index with those candidates: by single scores, by candidates and MaxSim, by fusions."""
    parts = [part for name in strategies for part in parts_of(name)]
    finders = [name for name in ("bm25", "dense") if name in parts]
    scores = [name for name in ("bm25", "dense") if name in parts or name == "bm25"]  # hybrid has the words in any case
    singles, fusions = [], []
    if HYBRID in parts:
        singles = [SearchWay(name, HYBRID, (name,), Way({name: 1.0}, FUSIONS[0]), single=True) for name in scores]
        for size, fusion in itertools.product((2, 3), FUSIONS):
            for names in itertools.combinations([*scores, MAXSIM], size):
                alike = Way(dict.fromkeys(names, 1.0), fusion)
                fusions.append(SearchWay(f"{'+'.join(names)} by {fusion}", HYBRID, names, alike))
    if EXHAUSTIVE in parts:
        singles.append(SearchWay(MAXSIM, EXHAUSTIVE, (MAXSIM,), single=True))
    own = [part for part in dict.fromkeys(parts) if part not in (*scores, "dense", HYBRID, EXHAUSTIVE)]
    both = ["+".join(finders)] if len(finders) > 1 else []
    ordered = [
        SearchWay(f"{name} -> {MAXSIM}", name, (*(part for part in parts_of(name) if part in finders), MAXSIM))
        for name in (*own, *finders, *both)
    ]
    return [*singles, *ordered, *fusions]


def measure_ways(client: Client, judged: Judged, settings: EvaluationSettings, *, step: StepReport | None = None) -> WaysReport:
    """Ask every query in every way, and once more with weights chosen by the other queries.

    Args:
        client: Client of the index.
        judged: Documents, queries and judgements.
        settings: `rerank` (None for 200), model and metrics. Weights are fitted to the first metric, or to nDCG@10.
        step: Called with the progress of each step.

    Returns:
        Metrics and rankings of each way.

    Raises:
        UsageError: If a query has no text, or if fewer candidates are reranked than the metrics look at.
    """
    say = step or (lambda _what, _done, _total: None)
    metrics = tuple(dict.fromkeys((*STANDARD, *settings.metrics)))
    metric, depth = (*settings.metrics, *STANDARD)[0], max(m.k for m in metrics)
    rerank = max(RERANK, depth) if settings.rerank is None else settings.rerank
    if rerank < depth:
        raise UsageError(f"--compare ranks {depth} hits by MaxSim, the depth of the metrics; give --rerank {depth} or more")
    judged = with_vectors(client, judged)
    ways = ways_of(client.strategies)
    rankings: dict[str, Rankings] = {}
    seconds: dict[str, Sequence[float]] = {}

    def ask(way: SearchWay, part: Judged) -> AskedRun:
        fused = way.fused or Way({}, "")
        how = replace(
            settings, candidates=way.candidates, weights=fused.weights or None, fusion=fused.fusion or None, rerank=rerank
        )
        return asked_run(client, part, depth, how, say, first=depth, what=way.name)

    for way in ways:
        found = ask(way, judged)
        rankings[way.name], seconds[way.name] = rankings_of(found.run), found.seconds
    scores = tuple(dict.fromkeys(name for way in ways if way.fused is not None and not way.single for name in way.scores))
    fitted = None
    if scores and len(judged.queries) >= LEAST_QUERIES:
        now = Way(dict.fromkeys(scores, 1.0), FUSIONS[0])
        fitted = fit_weights(record_scores(client, judged, now, say, dense=settings.model), judged.qrels, now, metric)
        folds = [ask(SearchWay(FITTED, HYBRID, scores, way), part) for way, part in _parts(judged, fitted.chosen)]
        ways.append(SearchWay(FITTED, HYBRID, scores))
        rankings[FITTED] = {query: ranking for fold in folds for query, ranking in rankings_of(fold.run).items()}
        seconds[FITTED] = [taken for fold in folds for taken in fold.seconds]
    singles = {way.name: rankings[way.name] for way in ways if way.single}
    rows = [
        measure_rankings(way.name, way.scores, rankings[way.name], singles, seconds[way.name], judged, metrics) for way in ways
    ]
    return WaysReport(judged.name, len(judged.documents), len(judged.queries), metric.key, tuple(rows), fitted, rankings)


def measure_rankings(
    name: str,
    scores: tuple[str, ...],
    rankings: Rankings,
    singles: Mapping[str, Rankings],
    seconds: Sequence[float],
    judged: Judged,
    metrics: Sequence[Metric],
) -> MeasuredWay:
    """Measure a way to search, and compare it with `singles`: the rankings of the single scores by name."""
    ids = [query.id for query in judged.queries]
    return MeasuredWay(
        name, scores, means(metrics, rankings, judged.qrels, ids),
        {other: compared(metrics, rankings, theirs, judged.qrels, ids) for other, theirs in singles.items() if other != name},
        {f"p{round(100 * share)}": 1000 * percentile(seconds, share) for share in (0.5, 0.95)}, name in singles,
    )  # fmt: skip


def with_vectors(client: Client, judged: Judged) -> Judged:
    """Return the collection with the rows and dense vectors of each query, so that a query is encoded once for all ways.

    Raises:
        UsageError: If a query has no text.
    """
    texts = [query.text for query in judged.queries]
    if not all(text.strip() for text in texts):
        raise UsageError("--compare also uses bm25 and dense, which need queries as text")
    rows = [query.vectors for query in judged.queries]
    if any(own is None for own in rows):
        rows = list(client.encoder.encode_queries(texts))
    dense = {name: model.encode_queries(texts) for name, model in dense_encoders(client.bundle).items()}
    return replace(
        judged,
        queries=[
            replace(query, vectors=own, dense={name: vectors[place] for name, vectors in dense.items()})
            for place, (query, own) in enumerate(zip(judged.queries, rows, strict=True))
        ],
    )


def _parts(judged: Judged, chosen: Mapping[str, Way]) -> Iterator[tuple[Way, Judged]]:
    """Yield each distinct way with the queries for which it was chosen."""
    distinct: list[Way] = []
    for way in chosen.values():
        if way not in distinct:
            distinct.append(way)
    for way in distinct:
        yield way, replace(judged, queries=[query for query in judged.queries if chosen[query.id] == way])
