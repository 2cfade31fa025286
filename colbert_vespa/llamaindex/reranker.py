"""Rerank the nodes of any LlamaIndex retriever by MaxSim."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from colbert_vespa.llamaindex.nodes import encoded_document
from late_interaction.documents import Document
from late_interaction.errors import UsageError
from query import AsyncClient, Client, Hit

__all__ = ["ColbertReranker"]

_dispatcher = get_dispatcher(__name__)


class ColbertReranker(BaseNodePostprocessor):
    """The k best of the nodes, with MaxSim as score. The given nodes are not changed."""

    client: Client
    k: int = 5

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows the class by."""
        return "ColbertReranker"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        """Rank the nodes; UsageError without a query."""
        query = self._begun(nodes, query_bundle)
        return _ended(nodes, self.client.rerank(query, _numbered(nodes), self.k))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._begun(nodes, query_bundle)
        return _ended(nodes, await self._async_client.rerank(query, _numbered(nodes), self.k))

    @functools.cached_property
    def _async_client(self) -> AsyncClient:
        return AsyncClient.from_client(self.client)

    def _begun(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        if query_bundle is None:
            raise UsageError("reranking needs a query; give query_bundle or query_str")
        name = self.client.model
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.k, model_name=name))
        return query_bundle.query_str


def _numbered(nodes: Sequence[NodeWithScore]) -> list[Document]:
    return [encoded_document(item.node, str(place)) for place, item in enumerate(nodes)]


def _ended(nodes: Sequence[NodeWithScore], hits: Sequence[Hit]) -> list[NodeWithScore]:
    found = [NodeWithScore(node=nodes[int(hit.id)].node, score=hit.score) for hit in hits]
    _dispatcher.event(ReRankEndEvent(nodes=found))
    return found
