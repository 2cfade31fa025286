"""A LlamaIndex retriever over a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from colbert_vespa.llamaindex.nodes import scored
from late_interaction.bundle import Bundle
from late_interaction.cross_encoder import CrossEncoder
from query import AsyncClient, Client

__all__ = ["ColbertRetriever"]


class ColbertRetriever(BaseRetriever):
    """The k best passages as nodes: those put into a ColbertVectorStore, or TextNodes whose source is the document."""

    def __init__(
        self,
        client: Client,
        *,
        k: int = 10,
        where: Mapping[str, object] | None = None,
        candidates: str = "auto",
        index: str | Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: str | None = None,
        dense: str | None = None,
        rerank_with: CrossEncoder | str | Path | None = None,
        rerank_with_top: int | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """Create a retriever; the caller who opened the client closes it.

        Args:
            client: Client of the index.
            k: Number of passages.
            where: Metadata filter.
            candidates: A strategy of the index, several joined by `+`, or `auto`.
            index: Name of the index, or names, as for Client.search.
            weights: As for Client.search.
            fusion: As for Client.search.
            dense: As for Client.search.
            rerank_with: As for Client.search.
            rerank_with_top: As for Client.search.
            callback_manager: LlamaIndex's callbacks.
        """
        super().__init__(callback_manager)
        self.client = client
        self._async_client = AsyncClient.from_client(client)
        self._arguments: dict[str, Any] = {
            "k": k, "where": where, "candidates": candidates, "index": index, "weights": weights, "fusion": fusion,
            "dense": dense, "rerank_with": rerank_with, "rerank_with_top": rerank_with_top,
        }  # fmt: skip

    @classmethod
    def from_address(
        cls,
        address: str | Path,
        bundle: Bundle | str | Path | None = None,
        *,
        k: int = 10,
        where: Mapping[str, object] | None = None,
        candidates: str = "auto",
        weights: Mapping[str, float] | None = None,
        fusion: str | None = None,
        dense: str | None = None,
        rerank_with: CrossEncoder | str | Path | None = None,
        rerank_with_top: int | None = None,
        device: str = "auto",
    ) -> ColbertRetriever:
        """Open a client and return a retriever over it. Close the client with `retriever.client.close()`.

        Arguments that the constructor does not have are those of Client.

        Raises:
            ColbertVespaError: As for Client.
        """
        client = Client(address, bundle, device=device)
        return cls(
            client, k=k, where=where, candidates=candidates, weights=weights, fusion=fusion, dense=dense,
            rerank_with=rerank_with, rerank_with_top=rerank_with_top,
        )  # fmt: skip

    async def aclose(self) -> None:
        """Close the connections opened by async calls in this event loop."""
        await self._async_client.close()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return scored(self.client.search(query_bundle.query_str, **self._arguments).hits)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = await self._async_client.search(query_bundle.query_str, **self._arguments)
        return scored(found.hits)
