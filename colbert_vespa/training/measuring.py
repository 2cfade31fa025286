"""Rank a held-out set by exact MaxSim, BM25 and a dense encoder, and test the differences."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colbert_vespa.evaluation.baselines import bm25_run, dense_run
from colbert_vespa.evaluation.collection import CollectionQuery
from colbert_vespa.evaluation.evaluating import Judged
from colbert_vespa.evaluation.metrics import Rankings, ndcg_at_k, recall_at_k, reciprocal_rank_at_k
from colbert_vespa.evaluation.runs import rankings_of
from colbert_vespa.evaluation.significance import paired
from colbert_vespa.training.data import TrainingData
from exporter.dense_baseline import DenseBaseline
from exporter.quiet import quiet
from late_interaction.documents import Document, passage_text
from late_interaction.errors import ColbertVespaError
from late_interaction.maxsim import maxsim_many
from late_interaction.progress import CountReport

__all__ = [
    "METRICS",
    "GainOverBaseline",
    "MeasuredModel",
    "compare",
    "dense_rankings",
    "held_out_of",
    "measure",
    "model_rankings",
    "smaller",
]

METRICS = {"ndcg_at_10": (ndcg_at_k, 10), "mrr_at_10": (reciprocal_rank_at_k, 10), "recall_at_100": (recall_at_k, 100)}
DEPTH = 100
BLOCK = 256  # documents in memory at a time


@dataclass(frozen=True)
class MeasuredModel:
    """Metrics of one model.

    Attributes:
        by_query: nDCG@10 of each query, in the order of the queries.
    """

    name: str
    means: Mapping[str, float]
    by_query: Sequence[float]


@dataclass(frozen=True)
class GainOverBaseline:
    """Difference of mean nDCG@10 over the queries.

    Attributes:
        low: Lower end of the 95 % confidence interval; equal to `difference` with a single query.
        high: Upper end of the same.
        t_test: Two-sided p-value of the paired t-test; None with a single query.
        randomisation: Two-sided p-value of the randomisation test; None with a single query.
    """

    against: str
    difference: float
    low: float
    high: float
    t_test: float | None
    randomisation: float | None


def held_out_of(name: str, data: TrainingData, documents: Sequence[str]) -> Judged:
    """Return the queries of the data as a judged collection.

    It contains the given documents and the positives of the queries. The positives made from one document take its place, and
    all of them are relevant to each of its queries.

    Args:
        name: Name of the collection.
        data: Held-out examples.
        documents: Texts to search besides the positives.
    """
    wholes = {example.whole for example in data.examples}
    positives = dict.fromkeys(example.positive for example in data.examples)
    texts = list(positives | dict.fromkeys(text for text in documents if text not in wholes))
    parts: dict[str, dict[str, None]] = {}
    for example in data.examples:
        parts.setdefault(example.whole, {})[example.positive] = None
    place = {text: f"d{n}" for n, text in enumerate(texts)}
    asked = {query: f"q{n}" for n, query in enumerate(dict.fromkeys(example.query for example in data.examples))}
    qrels: dict[str, dict[str, float]] = {}
    for example in data.examples:
        qrels.setdefault(asked[example.query], {}).update((place[part], 1.0) for part in parts[example.whole])
    corpus = [Document(id_, "", text) for text, id_ in place.items()]
    return Judged.of(name, corpus, [CollectionQuery(id_, text) for text, id_ in asked.items()], qrels, None)


def smaller(judged: Judged, queries: int, documents: int, seed: int) -> Judged:
    """Return a seeded part for evaluation during training: queries, their relevant documents, and others up to `documents`."""
    draw = random.Random(seed)
    asked = draw.sample(list(judged.queries), min(queries, len(judged.queries)))
    wanted = {id_ for query in asked for id_, value in judged.qrels[query.id].items() if value > 0}
    rest = [document.id for document in judged.documents if document.id not in wanted]
    wanted |= set(draw.sample(rest, max(0, min(len(rest), documents - len(wanted)))))
    return Judged(judged.name, [d for d in judged.documents if d.id in wanted], asked, judged.qrels)


def model_rankings(
    model: Any, judged: Judged, *, batch_size: int = 16, progress: CountReport | None = None
) -> dict[str, list[str]]:
    """Rank the best 100 documents of each query by exact MaxSim; equal scores keep the order of the documents.

    Args:
        model: A MultiVectorEncoder.
        judged: Documents and queries.
        batch_size: Texts encoded at a time.
        progress: Called with the number of documents done, and of all.

    Returns:
        Document ids by query id, best first.

    Raises:
        ColbertVespaError: If a score is NaN. The documents would otherwise rank in the order they were given.
    """
    queries = list(judged.queries)
    with quiet():
        rows = model.encode_query([q.text for q in queries], convert_to_numpy=True, show_progress_bar=False)
        scores = np.empty((len(queries), len(judged.documents)), np.float32)
        for first in range(0, len(judged.documents), BLOCK):
            part = judged.documents[first : first + BLOCK]
            vectors = model.encode_document(
                [passage_text(d.title, d.text) for d in part], batch_size=batch_size, convert_to_numpy=True,
                show_progress_bar=False,
            )  # fmt: skip
            lengths = [len(item) for item in vectors]
            flat = np.concatenate([np.asarray(item, np.float32) for item in vectors])
            for place, Q in enumerate(rows):
                scores[place, first : first + len(part)] = maxsim_many(np.asarray(Q, np.float32), flat, lengths)
            if progress is not None:
                progress(first + len(part), len(judged.documents))
    if np.isnan(scores).any():
        raise ColbertVespaError("the model returns vectors that are not finite; train with a lower learning rate, or in fp32")
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return {q.id: [judged.documents[int(n)].id for n in row] for q, row in zip(queries, order, strict=True)}


def dense_rankings(checkpoint: str | Path, judged: Judged) -> dict[str, list[str]]:
    """Rank the best 100 documents of each query by the inner product of a dense encoder.

    Raises:
        ColbertVespaError: As for DenseBaseline.
    """
    encoder = DenseBaseline(checkpoint)
    D = encoder.encode_documents([passage_text(d.title, d.text) for d in judged.documents])
    Q = encoder.encode_queries([q.text for q in judged.queries])
    return rankings_of(dense_run(judged.documents, judged.queries, D, Q, DEPTH))


def keyword_rankings(judged: Judged) -> dict[str, list[str]]:
    return rankings_of(bm25_run(judged.documents, judged.queries, DEPTH))


def measure(name: str, rankings: Rankings, judged: Judged) -> MeasuredModel:
    """Return the metrics of a model's rankings."""
    values = {
        metric: [function(rankings[q.id], judged.qrels.get(q.id, {}), k) for q in judged.queries]
        for metric, (function, k) in METRICS.items()
    }
    return MeasuredModel(
        name, {metric: float(np.mean(of_queries)) for metric, of_queries in values.items()}, values["ndcg_at_10"]
    )


def compare(trained: MeasuredModel, other: MeasuredModel) -> GainOverBaseline:
    """Return the gain over `other` on the same queries."""
    test = paired(trained.by_query, other.by_query)
    values = np.subtract(trained.by_query, other.by_query)
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return GainOverBaseline(
        other.name, test.difference, test.difference - half, test.difference + half, test.t_test, test.randomisation
    )  # fmt: skip
