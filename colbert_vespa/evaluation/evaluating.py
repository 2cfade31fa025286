"""Measure quality, recall of exact MaxSim and latency of a client on a judged collection, with baselines."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from colbert_vespa.evaluation.baselines import bm25_run, dense_run, fused_run, pooled_run
from colbert_vespa.evaluation.collection import CollectionQuery, Qrels, read_collection, read_qrels
from colbert_vespa.evaluation.metrics import STANDARD, Metric, Rankings, means, percentile
from colbert_vespa.evaluation.runs import Run, rankings_of, read_run
from colbert_vespa.evaluation.significance import PairedDifference, paired
from late_interaction.array_types import Matrix
from late_interaction.bundle import DENSE
from late_interaction.bundle_cache import cache_folder
from late_interaction.cross_encoder import CrossEncoder
from late_interaction.dense import dense_encoders
from late_interaction.documents import Document, Passage, passage_text
from late_interaction.encoder import check_finite
from late_interaction.errors import CollectionError, IncompleteAnswer, UsageError
from late_interaction.maxsim import maxsim_many
from late_interaction.metrics import overlap_at_k
from late_interaction.progress import StepReport
from late_interaction.vector_cache import CachedEncoder, DocumentEncoder, VectorCache
from query import Client, SearchResult
from query.options import AUTO
from query.types import Query

__all__ = [
    "AskedRun",
    "Evaluation",
    "EvaluationSettings",
    "Judged",
    "asked_run",
    "cached_encoder",
    "compared",
    "evaluate",
    "evaluate_run",
    "exact_rankings",
    "sampled_queries",
]

SEED = 13


@dataclass(frozen=True)
class Judged:
    """Documents, and the queries that have at least one relevant document among them."""

    name: str
    documents: Sequence[Document]
    queries: Sequence[CollectionQuery]
    qrels: Qrels

    @property
    def ready(self) -> bool:
        """Return whether all documents and queries have vectors."""
        return all(d.vectors for d in self.documents) and all(q.vectors is not None for q in self.queries)

    @classmethod
    def read(cls, collection: Path, qrels: Path | None = None, limit: int | None = None) -> Judged:
        """Read a collection folder.

        Args:
            collection: Folder with corpus, queries and qrels.
            qrels: File of judgements to use instead of the folder's own.
            limit: Size of a seeded sample of the queries; None for all.

        Raises:
            CollectionError: If the collection is not valid.
        """
        read = read_collection(collection, qrels)
        return cls.of(read.name, read.corpus, read.queries, read.qrels, limit)

    @classmethod
    def of(
        cls,
        name: str,
        documents: Iterable[Document],
        queries: Sequence[CollectionQuery],
        qrels: Qrels,
        limit: int | None = None,
    ) -> Judged:
        """Combine documents, queries and judgements, keeping a seeded sample of `limit` queries.

        Raises:
            CollectionError: If no query is judged.
        """
        there = {document.id: document for document in documents if not document.blank}
        judged = [q for q in queries if not q.blank and any(v > 0 and d in there for d, v in qrels.get(q.id, {}).items())]
        if not judged:
            raise CollectionError(f"collection {name} has no query with a relevant document in its corpus")
        if limit is not None and limit < len(judged):
            judged = random.Random(SEED).sample(judged, limit)
        return cls(name, list(there.values()), judged, qrels)


@dataclass(frozen=True)
class Evaluation:
    """Metrics and latencies of a client on a collection.

    Attributes:
        measured: Means over the queries by key of the metric, as `ndcg_at_10`.
        latency_ms: Milliseconds of a search, encoding of the query included.
        baselines: The same means for each baseline.
        differences: By baseline and metric, the difference to the client and whether it is more than chance.
        run: Hits of the client, best first: those of a search for ten, as a user asks, and after them those of a deeper search.
    """

    collection: str
    passages: int
    queries: int
    measured: Mapping[str, float]
    recall_at_10: float | None
    recall_queries: int
    latency_ms: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    candidates: str
    differences: Mapping[str, Mapping[str, PairedDifference]] = field(default_factory=dict)
    run: Run = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return everything except the run: `recall_at_10` is against exact MaxSim, `metrics` are against the judgements."""
        return {
            "collection": self.collection,
            "passages": self.passages,
            "queries": self.queries,
            **{metric.key: self.measured[metric.key] for metric in STANDARD},
            "metrics": dict(self.measured),
            "recall_at_10": self.recall_at_10,
            "recall_queries": self.recall_queries,
            "latency_ms": dict(self.latency_ms),
            "baselines": {name: dict(values) for name, values in self.baselines.items()},
            "candidates": self.candidates,
            "differences": {
                name: {key: dataclasses.asdict(value) for key, value in found.items()}
                for name, found in self.differences.items()
            },
        }


@dataclass(frozen=True)
class EvaluationSettings:
    """How a client is searched, and what it is compared with.

    Attributes:
        candidates: As in a search.
        rerank: As in a search.
        weights: As in a search.
        fusion: As in a search.
        model: Name of the dense model, as in a search.
        rerank_with: As in a search.
        rerank_with_top: As in a search.
        recall_queries: Number of queries that are compared with exact MaxSim.
        metrics: Metrics in addition to the standard ones.
        dense: Checkpoint of a single-vector model; None for the mean of the bundle's token vectors.
        baseline: A run of the same queries.
    """

    candidates: str = AUTO
    rerank: int | None = None
    recall_queries: int = 300
    metrics: tuple[Metric, ...] = ()
    dense: str | None = None
    baseline: Run | None = None
    weights: Mapping[str, float] | None = None
    fusion: str | None = None
    model: str | None = None
    rerank_with: CrossEncoder | str | Path | None = None
    rerank_with_top: int | None = None

    @property
    def cross_encoded(self) -> bool:
        """Return whether a cross-encoder reranks the hits."""
        return self.rerank_with is not None or self.rerank_with_top is not None


def evaluate(
    client: Client,
    judged: Judged,
    encoder: DocumentEncoder | None,
    settings: EvaluationSettings = EvaluationSettings(),
    *,
    step: StepReport | None = None,
) -> Evaluation:
    """Evaluate an index on a collection with relevance judgements.

    Hits whose id is not in the collection count as not relevant, as they would for a user. recall_at_10 compares with exact
    MaxSim over float32 vectors, for the first `settings.recall_queries` queries.

    Args:
        client: Client of the index.
        judged: Documents, queries and judgements.
        encoder: Encodes the documents that have no vectors of their own, for exact MaxSim. Without an encoder, a collection
            with documents or queries that have no vectors gets neither recall_at_10 nor the mean number of token vectors.
        settings: Settings of the searches and metrics.
        step: Called with the progress of each step.

    Returns:
        Metrics, latencies and rankings.
    """
    report = step or (lambda _what, _done, _total: None)
    metrics = tuple(dict.fromkeys((*STANDARD, *settings.metrics)))
    depth = max(metric.k for metric in metrics)
    asked = asked_run(client, judged, depth, settings, report)
    recall = None
    sample = judged.queries[: settings.recall_queries]
    exactly = settings.recall_queries > 0 and (encoder is not None or judged.ready)
    if exactly:
        exact = exact_rankings(client, judged.documents, sample, encoder, 10, report)
        recall = float(np.mean([overlap_at_k([id_ for id_, _ in asked.run[q.id]], exact[q.id], 10) for q in sample]))
    runs = _baseline_runs(client, judged, encoder, settings, asked.run, depth, report)
    ids = [query.id for query in judged.queries]
    ours = rankings_of(asked.run)
    return Evaluation(
        collection=judged.name,
        passages=len(judged.documents),
        queries=len(judged.queries),
        measured=means(metrics, ours, judged.qrels, ids),
        recall_at_10=recall,
        recall_queries=len(sample) if exactly else 0,
        latency_ms={"p50": 1000 * percentile(asked.seconds, 0.5), "p95": 1000 * percentile(asked.seconds, 0.95)},
        baselines={name: means(metrics, rankings_of(run), judged.qrels, ids) for name, run in runs.items()},
        candidates=asked.candidates,
        differences={name: compared(metrics, ours, rankings_of(run), judged.qrels, ids) for name, run in runs.items()},
        run=asked.run,
    )


@dataclass(frozen=True)
class AskedRun:
    """Hits of all queries of a collection.

    Attributes:
        seconds: Seconds of the first search for each query.
        candidates: Candidates of the last search.
    """

    run: dict[str, list[tuple[str, float]]]
    seconds: list[float]
    candidates: str


def asked_run(
    client: Client,
    judged: Judged,
    depth: int,
    settings: EvaluationSettings,
    report: StepReport,
    *,
    first: int = 10,
    what: str = "queries",
) -> AskedRun:
    """Search every query twice: timed for `first` hits, as a user would, then for `depth` hits, appended if that is more.

    Args:
        client: Client of the index.
        judged: Documents, queries and judgements.
        depth: Hits that the metrics need.
        settings: Options of the searches.
        report: Called with the progress.
        first: Hits of the timed search.
        what: Name of the step in reports of progress.

    Raises:
        IncompleteAnswer: If the cross-encoder did not finish in time.
    """
    run, seconds, used = {}, [], ""

    def search(query: Query, k: int) -> SearchResult:
        found = client.search(
            query, k, candidates=settings.candidates, rerank=settings.rerank, weights=settings.weights, fusion=settings.fusion,
            dense=settings.model, rerank_with=settings.rerank_with, rerank_with_top=settings.rerank_with_top,
        )  # fmt: skip
        if settings.cross_encoded and not found.reranked_with:
            raise IncompleteAnswer(f"{'; '.join(found.notes)}; raise --timeout, or lower --rerank-top")
        return found

    search(judged.queries[0].asked, depth)  # loads and compiles
    for place, query in enumerate(judged.queries):
        start = time.perf_counter()
        found = search(query.asked, first)
        seconds.append(time.perf_counter() - start)
        used = found.candidates
        deeper = search(query.asked, depth).hits if depth > first else ()
        scores: dict[str, float] = {}
        for hit in (*found.hits, *deeper):
            scores.setdefault(hit.id, hit.score)
        run[query.id] = list(scores.items())[: max(depth, first)]
        report(what, place + 1, len(judged.queries))
    return AskedRun(run, seconds, used)


def _baseline_runs(
    client: Client,
    judged: Judged,
    encoder: DocumentEncoder | None,
    settings: EvaluationSettings,
    ours: Run,
    depth: int,
    report: StepReport,
) -> dict[str, Run]:
    """Run the baselines: `hybrid` fuses BM25 with the client's own hits, `bm25_dense` with the dense ones."""
    documents, queries = judged.documents, judged.queries
    texts = any(d.title.strip() or d.text.strip() for d in documents) and any(q.text.strip() for q in queries)
    words: Run = bm25_run(documents, queries, depth) if texts else {}
    runs: dict[str, Run] = {"bm25": words} if texts else {}
    dense = None
    model = _dense_model(client, settings, whole_corpus=encoder is not None)
    if model is not None:
        report("dense", 0, len(documents))
        D = model.encode_documents([passage_text(d.title, d.text) for d in documents])
        report("dense", len(documents), len(documents))
        dense = dense_run(documents, queries, D, model.encode_queries([q.text for q in queries]), depth)
    elif encoder is not None and not any(d.vectors for d in documents):
        rows = [_query_rows(client, query) for query in queries]
        dense = pooled_run(documents, queries, rows, encoder, depth, report)
    if dense is not None:
        runs |= {"dense": dense, "bm25_dense": fused_run(dense, words, depth)}
    if texts:
        runs["hybrid"] = fused_run(ours, words, depth)
    if settings.baseline is not None:
        runs["baseline"] = settings.baseline
    return runs


class _Dense(Protocol):
    def encode_documents(self, texts: Sequence[str]) -> Matrix: ...
    def encode_queries(self, texts: Sequence[str]) -> Matrix: ...


def _dense_model(client: Client, settings: EvaluationSettings, *, whole_corpus: bool) -> _Dense | None:
    """Return the named dense model, else the bundle's if the whole corpus may be encoded; None if there is none."""
    if settings.dense is not None:
        from exporter.dense_baseline import DenseBaseline

        return DenseBaseline(settings.dense)
    models = dense_encoders(client.bundle) if whole_corpus else {}
    return models.get(DENSE) or next(iter(models.values()), None)


def compared(
    metrics: Sequence[Metric], ours: Rankings, theirs: Rankings, qrels: Qrels, queries: Sequence[str]
) -> dict[str, PairedDifference]:
    """Return by key of each metric how `ours` and `theirs` differ."""
    return {m.key: paired(m.values(ours, qrels, queries), m.values(theirs, qrels, queries)) for m in metrics}


def evaluate_run(path: Path, qrels: Path, settings: EvaluationSettings) -> Evaluation:
    """Evaluate a run of any engine against judgements, without an index: no latencies, no recall, `passages` 0.

    Raises:
        CollectionError: If no query of the judgements has a relevant document.
    """
    judged, run = read_qrels(qrels), read_run(path)
    queries = [query for query, values in judged.items() if any(value > 0 for value in values.values())]
    if not queries:
        raise CollectionError(f"{qrels} has no query with a relevant document")
    metrics = tuple(dict.fromkeys((*STANDARD, *settings.metrics)))
    runs = {} if settings.baseline is None else {"baseline": settings.baseline}
    ours = rankings_of(run)
    return Evaluation(
        collection=qrels.stem,
        passages=0,
        queries=len(queries),
        measured=means(metrics, ours, judged, queries),
        recall_at_10=None,
        recall_queries=0,
        latency_ms={},
        baselines={name: means(metrics, rankings_of(found), judged, queries) for name, found in runs.items()},
        candidates=path.name,
        differences={name: compared(metrics, ours, rankings_of(found), judged, queries) for name, found in runs.items()},
        run=run,
    )


def exact_rankings(
    client: Client,
    documents: Sequence[Document],
    queries: Sequence[CollectionQuery],
    encoder: DocumentEncoder | None,
    k: int,
    step: StepReport,
    block: int = 512,
) -> dict[str, list[str]]:
    """Return the best k documents of each query by exact MaxSim over float32 vectors, with one block in memory at a time.

    Equal scores keep the order of the documents, as the engine does.
    """
    rows = {query.id: _query_rows(client, query) for query in queries}
    best: dict[str, tuple[Matrix, NDArray[np.int64]]] = {id_: (np.empty(0, np.float32), np.empty(0, np.int64)) for id_ in rows}
    source = iter(documents)
    first = 0
    while part := list(islice(source, block)):
        vectors = _document_rows(client, part, encoder)
        flat = np.concatenate(vectors)
        lengths = np.array([len(item) for item in vectors])
        places = np.arange(first, first + len(part))
        for id_, Q in rows.items():
            scores = np.concatenate([best[id_][0], maxsim_many(Q, flat, lengths)])
            ids = np.concatenate([best[id_][1], places])
            order = np.lexsort((ids, -scores))[:k]
            best[id_] = scores[order], ids[order]
        first += len(part)
        step("exact MaxSim", first, len(documents))
    return {id_: [documents[int(place)].id for place in places] for id_, (_, places) in best.items()}


def _query_rows(client: Client, query: CollectionQuery) -> Matrix:
    return query.vectors if query.vectors is not None else client.encoder.encode_queries([query.text])[0]


def _document_rows(client: Client, documents: Sequence[Document], encoder: DocumentEncoder | None) -> list[Matrix]:
    """Return each document's token vectors; CollectionError if supplied ones do not fit, or are several passages."""
    texts = [Passage.of(document).encoded_text for document in documents if not document.vectors]
    encoded = iter(encoder.encode_documents(texts) if encoder is not None and texts else [])
    rules = client.bundle.document_rows
    found = []
    for document in documents:
        if len(document.vectors) > 1:
            raise CollectionError(
                f"document {document.id!r} has vectors of several passages, but exact MaxSim needs one per document"
            )
        try:
            found.append(rules.checked(document.vectors[0]) if document.vectors else next(encoded))
        except UsageError as error:
            raise CollectionError(f"document {document.id!r}: {error}") from None
    if encoder is not None:
        check_finite(found, encoder.bundle)
    return found


@contextmanager
def cached_encoder(encoder: DocumentEncoder) -> Iterator[CachedEncoder]:
    """Keep the vectors of documents in the user's cache, so that a corpus is encoded once per bundle."""
    cache = VectorCache(cache_folder() / "vectors" / encoder.bundle.sha256[:16], encoder.bundle.manifest.dim)
    try:
        yield CachedEncoder(encoder, cache)
    finally:
        cache.close()


def sampled_queries(collection: Path, limit: int) -> list[Query]:
    """Return the queries of a collection folder, or a seeded sample of `limit`, as texts or as rows with texts.

    Raises:
        CollectionError: If the collection is not valid.
    """
    asked = [query.asked for query in read_collection(collection).queries if not query.blank]
    return random.Random(SEED).sample(asked, limit) if limit < len(asked) else asked
