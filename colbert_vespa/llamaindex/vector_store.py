"""A LlamaIndex vector store that computes its own vectors, several per node."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from colbert_vespa.llamaindex.filters import where_of
from colbert_vespa.llamaindex.nodes import REF_DOC_ID, document_of, node_of, node_of_document
from colbert_vespa.store import DocumentStore
from late_interaction.bundle import Bundle
from late_interaction.cross_encoder import CrossEncoder
from late_interaction.documents import Passage
from late_interaction.errors import UsageError
from query import AsyncClient, Client, Hit

__all__ = ["ColbertVectorStore"]

_OPENING = threading.Lock()

_CANDIDATES = {
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
    VectorStoreQueryMode.TEXT_SEARCH: "bm25",
    VectorStoreQueryMode.SPARSE: "bm25",
}


class ColbertVectorStore(BasePydanticVectorStore):
    """A LlamaIndex vector store over a local index or Vespa. Close it after use.

    A missing local index is created by the first `add`. An index of Vespa needs the metadata fields `metadata_json` and
    `ref_doc_id`, both of type string.

    Embeddings of nodes are not read: the index has vectors of its own for every token. It encodes a node's text, with its
    metadata `title` in front. Modes are default; hybrid, with `alpha` or the index's own weights; text_search and sparse, which
    find passages by words and order them by MaxSim.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    candidates: str = "auto"
    rerank_with: CrossEncoder | str | Path | None = None
    rerank_with_top: int | None = None
    _store: DocumentStore = PrivateAttr()
    _async_client: AsyncClient | None = PrivateAttr(default=None)

    def __init__(
        self,
        address: str | Path,
        bundle: Bundle | str | Path | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        candidates: str = "auto",
        rerank_with: CrossEncoder | str | Path | None = None,
        rerank_with_top: int | None = None,
        device: str = "auto",
    ) -> None:
        """Open a store.

        Args:
            address: Folder of an index, or URL of Vespa.
            bundle: As for DocumentStore.
            fields: As for DocumentStore; `ref_doc_id` is added.
            candidates: Candidates of mode default.
            rerank_with: Cross-encoder that reranks in every mode.
            rerank_with_top: Number of hits that the cross-encoder reads.
            device: As for DocumentStore.

        Raises:
            ColbertVespaError: As for DocumentStore.
        """
        super().__init__(  # type: ignore[call-arg]  # fields of a pydantic model
            candidates=candidates, rerank_with=rerank_with, rerank_with_top=rerank_with_top
        )
        named = None if fields is None else {**fields, REF_DOC_ID: "string"}
        self._store = DocumentStore(address, bundle, fields=named, device=device)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows the class by."""
        return "ColbertVectorStore"

    @property
    def client(self) -> Client | None:
        """Return the client; None as long as there is no index."""
        return self._store.client

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes, replacing those with the same ids; blank nodes are left out.

        Raises:
            MetadataError: If a value does not fit its field; nothing is written then.
            LocalIndexError: If the index is damaged, or a node was not written.
            VespaError: If Vespa does not answer, or a node was not written.
        """
        documents = [document_of(node) for node in nodes]
        outcome = self._store.put([document for document in documents if not document.blank])
        for id_, why in outcome.failed.items():
            raise self._store.refusal(f"node {id_!r} was rejected: {why}")
        return list(outcome.succeeded)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Call `add` in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        self._store.delete_where({REF_DOC_ID: ref_doc_id})

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Call `delete` in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete the nodes that are named and that the filters select.

        Raises:
            UsageError: If neither ids nor filters are given.
        """
        if node_ids is None and filters is None:
            raise UsageError("delete_nodes needs node_ids or filters; clear() deletes all nodes")
        where = self._where(filters)
        if node_ids is None:
            self._store.delete_where(where)
        else:
            self._store.delete([document.id for document in self._store.get(node_ids, where)])

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Call `delete_nodes` in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return the existing nodes that the filters select; without ids at most 10,000."""
        if self._store.client is None:
            return []
        where = self._where(filters)
        wanted = self._store.client.select(where).check_full() if node_ids is None else node_ids
        return [node_of_document(document) for document in self._store.get(wanted, where)]

    async def aget_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Call `get_nodes` in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def clear(self) -> None:
        """Delete all nodes."""
        self._store.delete_where(None)

    async def aclear(self) -> None:
        """Call `clear` in a thread."""
        await asyncio.to_thread(self.clear)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search for the best nodes. Empty `node_ids` or `doc_ids` mean all nodes, as LlamaIndex's own retriever passes them.

        Raises:
            UsageError: If the query has no text, or its mode is not supported.
            FilterError: If a filter is not supported.
            LocalIndexError: If the index is missing or damaged.
            VespaError: If Vespa does not answer or refuses the query.
        """
        client = self._store.client
        if client is None:
            return _result([], [])
        text, where = _text(query), self._selected(query)
        if query.node_ids:
            passages = client.get(query.node_ids, where=where)
            return _best(passages, client.score(text, _ids(passages)), query.similarity_top_k)
        return _of_hits(client.search(text, where=where, **self._arguments(query), **self._last_stage).hits)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Search like `query`, asynchronously."""
        if self._store.client is None:
            return _result([], [])
        with _OPENING:
            self._async_client = client = self._async_client or AsyncClient.from_client(self._store.client)
        text, where = _text(query), self._selected(query)
        if query.node_ids:
            passages = await client.get(query.node_ids, where=where)
            return _best(passages, await client.score(text, _ids(passages)), query.similarity_top_k)
        found = await client.search(text, where=where, **self._arguments(query), **self._last_stage)
        return _of_hits(found.hits)

    async def aclose(self) -> None:
        """Close the connections opened by async queries in this event loop."""
        if self._async_client is not None:
            await self._async_client.close()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _where(self, filters: MetadataFilters | None) -> dict[str, Any]:
        return {} if self._store.client is None else where_of(filters, self._store.client.schema)

    def _selected(self, query: VectorStoreQuery) -> dict[str, Any]:
        where = self._where(query.filters)
        if not query.doc_ids:
            return where
        return {"$and": [where, {REF_DOC_ID: {"$in": query.doc_ids}}]}

    @property
    def _last_stage(self) -> dict[str, Any]:
        return {"rerank_with": self.rerank_with, "rerank_with_top": self.rerank_with_top}

    def _arguments(self, query: VectorStoreQuery) -> dict[str, Any]:
        """Return the arguments of Client.search."""
        if query.mode is VectorStoreQueryMode.DEFAULT:
            return {"k": query.similarity_top_k, "candidates": self.candidates}
        if query.mode not in _CANDIDATES:
            known = ", ".join(mode.value for mode in _CANDIDATES)
            raise UsageError(f"mode {query.mode.value} needs single vectors; this store supports: default, {known}")
        candidates = _CANDIDATES[query.mode]
        if candidates == "bm25":
            return {"k": query.sparse_top_k or query.similarity_top_k, "candidates": candidates}
        weights = None if query.alpha is None else {"maxsim": query.alpha, "bm25": 1.0 - query.alpha}
        return {"k": query.hybrid_top_k or query.similarity_top_k, "candidates": candidates, "weights": weights}


def _text(query: VectorStoreQuery) -> str:
    if not query.query_str:
        raise UsageError("a query must be text: a single vector (query_embedding) cannot be compared with token vectors")
    return query.query_str


def _ids(passages: Mapping[str, tuple[Passage, ...]]) -> list[str]:
    return [passage.id for own in passages.values() for passage in own]


def _best(passages: Mapping[str, tuple[Passage, ...]], scores: Mapping[str, float], k: int) -> VectorStoreQueryResult:
    """Return the k best of the nodes that a query names."""
    hits = [
        Hit(0, passage.document_id, passage.id, scores[passage.id], passage.title, passage.text, passage.metadata)
        for own in passages.values()
        for passage in own
        if passage.id in scores
    ]
    return _of_hits(sorted(hits, key=lambda hit: -hit.score)[:k])


def _of_hits(hits: Sequence[Hit]) -> VectorStoreQueryResult:
    return _result([node_of(hit) for hit in hits], [hit.score for hit in hits])


def _result(nodes: list[BaseNode], scores: list[float]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(nodes=nodes, similarities=scores, ids=[node.node_id for node in nodes])
