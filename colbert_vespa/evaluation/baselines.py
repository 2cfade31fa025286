"""Baselines for late interaction on the same texts: BM25, one vector per document, and fusions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from colbert_vespa.evaluation.collection import CollectionQuery
from colbert_vespa.evaluation.runs import Run
from late_interaction.array_types import Matrix, Vector
from late_interaction.documents import Document, passage_text
from late_interaction.one_vector.mean import MeanVector
from late_interaction.progress import StepReport
from late_interaction.vector_cache import DocumentEncoder
from query.fusion import fused
from query.options import SearchOptions

__all__ = ["Hits", "bm25_run", "dense_run", "fused_run", "pooled_run"]

Hits = dict[str, list[tuple[str, float]]]
BLOCK = 512


def bm25_run(documents: Sequence[Document], queries: Sequence[CollectionQuery], k: int) -> Hits:
    """Return the run of BM25 over the texts that the encoder reads."""
    from late_interaction.bm25 import Bm25

    keyword = Bm25([d.id for d in documents], [passage_text(d.title, d.text) for d in documents])
    return {query.id: keyword.search(query.text, k) for query in queries}


def pooled_run(
    documents: Sequence[Document],
    queries: Sequence[CollectionQuery],
    rows: Sequence[Matrix],
    encoder: DocumentEncoder,
    k: int,
    step: StepReport,
) -> Hits:
    """Rank documents by the cosine of mean token vectors, as candidates `pooled` with encoding mean do.

    Args:
        documents: The corpus.
        queries: The queries.
        rows: Rows `[q, d]` of each query.
        encoder: Encodes the documents.
        k: Hits per query.
        step: Called with the progress.
    """
    source, vectors, mean = iter(documents), list[Vector](), MeanVector(rows[0].shape[1])
    while part := list(islice(source, BLOCK)):
        found = encoder.encode_documents([passage_text(d.title, d.text) for d in part])
        vectors += list(mean.passages(found))
        step("dense", len(vectors), len(documents))
    return dense_run(documents, queries, np.stack(vectors), mean.passages(rows), k)


def dense_run(documents: Sequence[Document], queries: Sequence[CollectionQuery], D: Matrix, Q: Matrix, k: int) -> Hits:
    """Rank documents by exact search over unit rows: `D [n, d]` one per document, `Q [m, d]` one per query."""
    found = {}
    for query, row in zip(queries, Q, strict=True):
        scores = D @ row
        best = np.argsort(-scores, kind="stable")[:k].tolist()
        found[query.id] = [(documents[place].id, float(scores[place])) for place in best]
    return found


def fused_run(first: Run, second: Run, k: int) -> Hits:
    """Return the reciprocal rank fusion of both runs."""
    found = {}
    for query, hits in first.items():
        scores = fused({"maxsim": dict(hits), "bm25": dict(second.get(query, []))}, SearchOptions().fusion_weights)
        found[query] = sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:k]
    return found
