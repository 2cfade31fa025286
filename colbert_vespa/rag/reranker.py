"""Reranking without an index, for whatever takes a client to rerank with."""

from __future__ import annotations

from collections.abc import Sequence

from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from query import Hit
from query.reranking import reranked
from query.types import Query

__all__ = ["Reranker"]


class Reranker:
    """`Client.rerank` for a model that has no index."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def rerank(
        self, query: Query, documents: Sequence[str | Document], k: int | None = None, *, explain: bool = False
    ) -> tuple[Hit, ...]:
        """As `Client.rerank`."""
        return reranked(self.encoder, query, documents, k, explain)
