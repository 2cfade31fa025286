"""Order texts by MaxSim; they need not be in an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, passage_text
from late_interaction.encoder import Encoder, check_finite
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim_many
from query.backend import encode_query
from query.explain import explained
from query.types import Hit, Query

__all__ = ["reranked"]


def reranked(
    bundle: Bundle, encoder: Callable[[], Encoder], query: Query, documents: Sequence[Document], k: int | None, explain: bool
) -> tuple[Hit, ...]:
    """Return the best k (None: all) of the documents; those without a word come last.

    encoder: called if there is a text.

    Raises:
        UsageError: if the query is blank or has another shape, or a document's own vectors do not fit.
    """
    encoded = encode_query(query, bundle.manifest.dim, encoder)
    if not documents:
        return ()
    vectors = _vectors(bundle, encoder, documents)
    lengths = [len(D) for D in vectors]
    scores = maxsim_many(encoded.rows, np.concatenate(vectors), lengths)
    order = np.argsort(-scores, kind="stable")[:k].tolist()
    hits = []
    for rank, place in enumerate(order, start=1):
        d, D, score = documents[place], vectors[place], float(scores[place])
        rows = encoded.row_scores(D) if explain else ()
        hits.append(Hit(rank, d.id, d.id, score, d.title, d.text, d.metadata, stages={"maxsim": score}, rows=rows, vectors=D))
    if explain and encoded.text and not encoded.ready and not any(d.vectors for d in documents):
        return explained(encoder(), encoded, hits)
    return tuple(replace(hit, vectors=None) for hit in hits)


def _vectors(bundle: Bundle, encoder: Callable[[], Encoder], documents: Sequence[Document]) -> list[Matrix]:
    """Return the rows of each document: its own, or those of its text."""
    texts = [passage_text(d.title, d.text) for d in documents if not d.vectors]
    encoded = encoder().encode_documents(texts) if texts else []
    check_finite(encoded, bundle)
    made = iter([D if text.strip() else D[:0] for D, text in zip(encoded, texts, strict=True)])  # markers are not words
    return [_own(bundle, document) if document.vectors else next(made) for document in documents]


def _own(bundle: Bundle, document: Document) -> Matrix:
    try:
        if len(document.vectors) > 1:
            raise UsageError("it has vectors of several passages; give each passage as a document")
        return bundle.document_rows.checked(document.vectors[0])
    except UsageError as error:
        raise UsageError(f"document {document.id!r}: {error}") from None
