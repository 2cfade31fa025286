"""A LangChain retriever over a client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import PrivateAttr

from colbert_vespa.langchain.conversion import from_hit
from late_interaction.addresses import locate
from late_interaction.bundle import Bundle
from late_interaction.cross_encoder import CrossEncoder
from query import AsyncClient, Client, ClientSettings

__all__ = ["ColbertRetriever", "tracing"]


class ColbertRetriever(BaseRetriever):
    """A LangChain retriever that returns the k best passages as Documents; the caller who opened the client closes it.

    A Document's `id` is that of the document; its metadata has the document's fields and title, passage_id, score and index.

    A call may replace k, where, candidates and index: `retriever.invoke(query, k=3, where={"year": 2024})`.

    Attributes:
        client: Client of the index.
        k: Number of passages.
        where: Metadata filter.
        candidates: A strategy of the index, several joined by `+`, or `auto`.
        index: Name of the index, or names.
        weights: As for Client.search.
        fusion: As for Client.search.
        dense: As for Client.search.
        rerank_with: As for Client.search.
        rerank_with_top: As for Client.search.
    """

    client: Client
    k: int = 10
    where: dict[str, Any] | None = None
    candidates: str = "auto"
    index: str | list[str] | None = None
    weights: dict[str, float] | None = None
    fusion: str | None = None
    dense: str | None = None
    rerank_with: CrossEncoder | str | Path | None = None
    rerank_with_top: int | None = None

    _async_client: AsyncClient = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Open the asynchronous client over the given one."""
        super().model_post_init(context)
        self._async_client = AsyncClient.from_client(self.client)

    @classmethod
    def from_address(
        cls,
        address: str | Path,
        bundle: Bundle | str | Path | None = None,
        *,
        k: int = 10,
        where: Mapping[str, object] | None = None,
        candidates: str = "auto",
        index: str | list[str] | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: str | None = None,
        dense: str | None = None,
        rerank_with: CrossEncoder | str | Path | None = None,
        rerank_with_top: int | None = None,
        settings: ClientSettings | None = None,
        device: str = "auto",
    ) -> ColbertRetriever:
        """Open a client and return a retriever over it. Close the client with `retriever.client.close()`.

        Arguments that are not attributes are those of Client.

        Raises:
            ColbertVespaError: As for Client.
        """
        filter_ = None if where is None else dict(where)
        client = Client(address, bundle, settings=settings, device=device)
        chosen = None if weights is None else dict(weights)
        return cls(
            client=client, k=k, where=filter_, candidates=candidates, index=index, weights=chosen, fusion=fusion, dense=dense,
            rerank_with=rerank_with, rerank_with_top=rerank_with_top,
        )  # fmt: skip

    async def aclose(self) -> None:
        """Close the connections opened by async calls in this event loop."""
        await self._async_client.close()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
        index: str | list[str] | None = None,
    ) -> list[Document]:
        found = self.client.search(query, **self._arguments(k, where, candidates, index))
        return [from_hit(hit) for hit in found.hits]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
        index: str | list[str] | None = None,
    ) -> list[Document]:
        found = await self._async_client.search(query, **self._arguments(k, where, candidates, index))
        return [from_hit(hit) for hit in found.hits]

    def _arguments(
        self, k: int | None, where: Mapping[str, object] | None, candidates: str | None, index: str | list[str] | None
    ) -> dict[str, Any]:
        """Return the arguments of a call, with the retriever's as defaults; an empty `where` removes the retriever's."""
        return {
            "k": self.k if k is None else k,
            "where": self.where if where is None else where,
            "candidates": candidates or self.candidates,
            "index": self.index if index is None else index,
            "weights": self.weights,
            "fusion": self.fusion,
            "dense": self.dense,
            "rerank_with": self.rerank_with,
            "rerank_with_top": self.rerank_with_top,
        }

    def _get_ls_params(self, **_kwargs: Any) -> LangSmithRetrieverParams:
        return tracing(self.client)


def tracing(client: Client) -> LangSmithRetrieverParams:
    """Return the properties of a retriever that LangSmith shows."""
    return LangSmithRetrieverParams(
        ls_retriever_name="colbert",
        ls_vector_store_provider="colbert-vespa" if isinstance(locate(client.address), Path) else "vespa",
        ls_embedding_provider="colbert-vespa",
        ls_embedding_model=client.model,
    )
