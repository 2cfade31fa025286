"""Texts that need not be in an index, ordered by MaxSim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from late_interaction.documents import Document, passage_text
from late_interaction.encoder import Encoder, check_finite
from late_interaction.maxsim import maxsim_many
from query.backend import encode_query
from query.explain import explained
from query.types import Hit, Query

__all__ = ["reranked"]


def reranked(encoder: Encoder, query: Query, documents: Sequence[Document], k: int | None, explain: bool) -> tuple[Hit, ...]:
    """The best k (None: all) of the documents; those without a word come last.

    Raises: UsageError on a query that is blank or of another shape.
    """
    encoded = encode_query(query, encoder.dim, lambda: encoder)
    if not documents:
        return ()
    texts = [passage_text(d.title, d.text) for d in documents]
    vectors = encoder.encode_documents(texts)
    check_finite(vectors, encoder.bundle)
    vectors = [D if text.strip() else D[:0] for D, text in zip(vectors, texts, strict=True)]  # markers are no words
    lengths = [len(D) for D in vectors]
    scores = maxsim_many(encoded.rows, np.concatenate(vectors), lengths)
    order = np.argsort(-scores, kind="stable")[:k].tolist()
    hits = []
    for rank, place in enumerate(order, start=1):
        d, D, score = documents[place], vectors[place], float(scores[place])
        rows = encoded.row_scores(D) if explain else ()
        hits.append(Hit(rank, d.id, d.id, score, d.title, d.text, d.metadata, stages={"maxsim": score}, rows=rows, vectors=D))
    if explain and encoded.text and not encoded.ready:
        return explained(encoder, encoded, hits)
    return tuple(replace(hit, vectors=None) for hit in hits)
