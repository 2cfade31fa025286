"""Quality, recall against exact MaxSim, and latency of a client on a judged collection, beside BM25."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colbert_vespa.recall import Goal, RecallReport, measure_recall
from feeder.sources import Query, read_collection
from late_interaction.bm25 import Bm25
from late_interaction.bundle_cache import cache_folder
from late_interaction.documents import Document, Passage, passage_text
from late_interaction.errors import CollectionError
from late_interaction.maxsim import maxsim_many
from late_interaction.metrics import ndcg_at_k, overlap_at_k, percentile, recall_at_k, reciprocal_rank_at_k
from late_interaction.vector_cache import CachedEncoder, DocumentEncoder, VectorCache
from query import Client, ClientSettings
from query.options import AUTO

__all__ = ["Evaluation", "Judged", "bm25_rankings", "evaluate", "evaluate_address", "exact_rankings", "recall_at_address"]

SEED = 13
Qrels = Mapping[str, Mapping[str, float]]
Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Judged:
    """Documents, and the queries that have at least one relevant document among them."""

    name: str
    documents: Sequence[Document]
    queries: Sequence[Query]
    qrels: Qrels

    @classmethod
    def of(cls, name: str, documents: Iterable[Document], queries: Sequence[Query], qrels: Qrels, limit: int | None) -> Judged:
        """`limit`: a seeded sample of so many queries. Raises: CollectionError where no query is judged."""
        there = {document.id: document for document in documents if not document.blank}
        judged = [q for q in queries if q.text.strip() and any(v > 0 and d in there for d, v in qrels.get(q.id, {}).items())]
        if not judged:
            raise CollectionError(f"collection {name} has no query with a relevant document in its corpus")
        if limit is not None and limit < len(judged):
            judged = random.Random(SEED).sample(judged, limit)
        return cls(name, list(there.values()), judged, qrels)


@dataclass(frozen=True)
class Evaluation:
    """Means over the queries; latencies in milliseconds, encoding of the query included."""

    collection: str
    passages: int
    queries: int
    ndcg_at_10: float
    mrr_at_10: float
    recall_at_100: float
    recall_at_10: float | None
    recall_queries: int
    latency_ms: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    candidates: str

    def to_json(self) -> dict[str, object]:
        return {
            "collection": self.collection,
            "passages": self.passages,
            "queries": self.queries,
            "ndcg_at_10": self.ndcg_at_10,
            "mrr_at_10": self.mrr_at_10,
            "recall_at_100": self.recall_at_100,
            "recall_at_10": self.recall_at_10,
            "recall_queries": self.recall_queries,
            "latency_ms": dict(self.latency_ms),
            "baselines": {name: dict(values) for name, values in self.baselines.items()},
            "candidates": self.candidates,
        }


def evaluate(
    client: Client,
    judged: Judged,
    encoder: DocumentEncoder | None,
    *,
    candidates: str = AUTO,
    rerank: int | None = None,
    recall_queries: int = 300,
    step: Step | None = None,
) -> Evaluation:
    """`encoder`: encodes the corpus for exact MaxSim; None leaves recall_at_10 out.

    Hits whose id is not in the collection count as not relevant, as they would for a user. recall_at_10 compares with exact
    MaxSim over float32 vectors, for the first `recall_queries` of the queries.
    """
    report = step or (lambda _what, _done, _total: None)
    rankings: dict[str, list[str]] = {}
    top10: dict[str, list[str]] = {}
    seconds = []
    client.search(judged.queries[0].text, 100, candidates=candidates, rerank=rerank)  # loads and compiles
    used = ""
    for place, query in enumerate(judged.queries):
        start = time.perf_counter()
        found = client.search(query.text, 10, candidates=candidates, rerank=rerank)
        seconds.append(time.perf_counter() - start)
        used = found.candidates
        top10[query.id] = [hit.id for hit in found.hits]
        deep = client.search(query.text, 100, candidates=candidates, rerank=rerank)
        rankings[query.id] = list(dict.fromkeys(hit.id for hit in deep.hits))
        report("queries", place + 1, len(judged.queries))
    recall = None
    sample = judged.queries[:recall_queries]
    if encoder is not None:
        exact = exact_rankings(client, judged.documents, sample, encoder, 10, report)
        recall = float(np.mean([overlap_at_k(top10[q.id], exact[q.id], 10) for q in sample]))
    keyword = bm25_rankings(judged.documents, judged.queries, 100)
    return Evaluation(
        collection=judged.name,
        passages=len(judged.documents),
        queries=len(judged.queries),
        ndcg_at_10=_mean(ndcg_at_k, top10, judged, 10),
        mrr_at_10=_mean(reciprocal_rank_at_k, top10, judged, 10),
        recall_at_100=_mean(recall_at_k, rankings, judged, 100),
        recall_at_10=recall,
        recall_queries=len(sample) if encoder is not None else 0,
        latency_ms={"p50": 1000 * percentile(seconds, 0.5), "p95": 1000 * percentile(seconds, 0.95)},
        baselines={
            "bm25": {
                "ndcg_at_10": _mean(ndcg_at_k, keyword, judged, 10),
                "mrr_at_10": _mean(reciprocal_rank_at_k, keyword, judged, 10),
                "recall_at_100": _mean(recall_at_k, keyword, judged, 100),
            }
        },
        candidates=used,
    )


def _mean(
    metric: Callable[[Sequence[str], Mapping[str, float], int], float],
    rankings: Mapping[str, Sequence[str]],
    judged: Judged,
    k: int,
) -> float:
    return float(np.mean([metric(rankings[q.id], judged.qrels.get(q.id, {}), k) for q in judged.queries]))


def bm25_rankings(documents: Sequence[Document], queries: Sequence[Query], k: int) -> dict[str, list[str]]:
    """BM25 over the same texts that the encoder sees."""
    keyword = Bm25([d.id for d in documents], [passage_text(d.title, d.text) for d in documents])
    return {query.id: [id_ for id_, _ in keyword.search(query.text, k)] for query in queries}


def exact_rankings(
    client: Client,
    documents: Sequence[Document],
    queries: Sequence[Query],
    encoder: DocumentEncoder,
    k: int,
    step: Step,
    block: int = 512,
) -> dict[str, list[str]]:
    """The best k by exact MaxSim over float32 vectors, a block of documents in memory at a time.

    Equal scores keep the order of the documents, as the engine does.
    """
    rows = {query.id: client.encoder.encode_queries([query.text])[0] for query in queries}
    best: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {
        id_: (np.empty(0, np.float32), np.empty(0, np.int64)) for id_ in rows
    }
    source = iter(documents)
    first = 0
    while part := list(islice(source, block)):
        vectors = encoder.encode_documents([Passage.of(document).encoded_text for document in part])
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


def evaluate_address(
    address: str,
    collection: Path,
    *,
    bundle: Path | None = None,
    candidates: str = AUTO,
    rerank: int | None = None,
    queries: int | None = None,
    recall_queries: int = 300,
    settings: ClientSettings | None = None,
    step: Step | None = None,
) -> Evaluation:
    """`evaluate` of a client at `address` on a collection folder.

    The corpus is encoded once per bundle and kept in the user's cache, for exact MaxSim.
    Raises: CollectionError, LocalIndexError, BundleError, VespaError.
    """
    read = read_collection(collection)
    judged = Judged.of(read.name, read.corpus, read.queries, read.qrels, queries)
    whole = dataclasses.replace(settings or ClientSettings(), require_full=True)  # a part of an answer measures nothing
    with Client(address, bundle, settings=whole) as client:
        if not recall_queries:
            return evaluate(client, judged, None, candidates=candidates, rerank=rerank, step=step)
        folder = cache_folder() / "vectors" / client.bundle.sha256[:16]
        cache = VectorCache(folder, client.encoder.dim)
        try:
            return evaluate(
                client, judged, CachedEncoder(client.encoder, cache), candidates=candidates, rerank=rerank,
                recall_queries=recall_queries, step=step,
            )  # fmt: skip
        finally:
            cache.close()


def recall_at_address(
    address: str,
    collection: Path,
    goal: Goal,
    *,
    bundle: Path | None = None,
    strategies: Sequence[str] | None = None,
    queries: int | None = None,
    settings: ClientSettings | None = None,
    whole: bool = True,
    step: Step | None = None,
) -> RecallReport:
    """`measure_recall` at `address` with the queries of a collection folder; `queries`: a seeded sample of so many.

    Raises: as measure_recall and Client.
    """
    texts = [query.text for query in read_collection(collection).queries if query.text.strip()]
    if queries is not None and queries < len(texts):
        texts = random.Random(SEED).sample(texts, queries)
    with Client(address, bundle, settings=settings) as client:
        return measure_recall(client, texts, goal, strategies=strategies, whole=whole, step=step)
