"""Rerank the documents of any LangChain retriever by MaxSim."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict

from colbert_vespa.store import title_of
from late_interaction.documents import Document as IndexDocument
from query import AsyncClient, Client, Hit

__all__ = ["RELEVANCE", "ColbertReranker"]

RELEVANCE = "relevance_score"


class ColbertReranker(BaseDocumentCompressor):
    """The k best of the documents, as copies with `relevance_score` in their metadata; the given documents are not changed."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    client: Client
    k: int = 5

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the k best documents, best first.

        Raises:
            UsageError: If the query is blank.
        """
        return _chosen(documents, self.client.rerank(query, _numbered(documents), self.k))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the k best documents, like `compress_documents`."""
        return _chosen(documents, await self._async_client.rerank(query, _numbered(documents), self.k))

    @functools.cached_property
    def _async_client(self) -> AsyncClient:
        return AsyncClient.from_client(self.client)


def _numbered(documents: Sequence[Document]) -> list[IndexDocument]:
    """Number documents by position, because LangChain's documents may have no ids, or equal ones."""
    return [IndexDocument(str(place), title_of(d.metadata), d.page_content) for place, d in enumerate(documents)]


def _chosen(documents: Sequence[Document], hits: Sequence[Hit]) -> list[Document]:
    best = [(documents[int(hit.id)], hit.score) for hit in hits]
    return [d.model_copy(update={"metadata": {**d.metadata, RELEVANCE: score}}) for d, score in best]
