"""Haystack: a retriever and a ranker as components of a pipeline."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

from colbert_vespa.store import title_of, whole_metadata
from late_interaction.documents import Document as IndexDocument
from late_interaction.errors import FilterError
from late_interaction.extras import required
from query import AsyncClient, Client, Hit

with required("haystack", "Haystack's interface"):
    from haystack import Document, component, default_from_dict, default_to_dict

__all__ = ["ColbertRanker", "ColbertRetriever", "where_of"]

_OPENING = threading.Lock()
_COMPARISONS = {
    "==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte", "in": "$in", "not in": "$nin",
}  # fmt: skip


class _WithClients:
    """A component whose clients are opened by the first call, so that a pipeline can be read from YAML without an index."""

    def __init__(self, address: str, bundle: str | None, device: str) -> None:
        self.address, self.bundle, self.device = address, bundle, device
        self._clients: tuple[Client, AsyncClient] | None = None

    @property
    def _opened_clients(self) -> tuple[Client, AsyncClient]:
        """Return the clients, opened by the first call; errors are those of Client."""
        with _OPENING:
            if self._clients is None:
                client = Client(self.address, self.bundle, device=self.device)
                self._clients = client, AsyncClient.from_client(client)
            return self._clients

    def warm_up(self) -> None:
        """Open the index.

        Raises:
            LocalIndexError: If the index is missing or damaged.
            BundleError: If the bundle is not known or damaged.
            VespaError: If Vespa does not answer.
            UsageError: If an argument does not fit.
        """
        _ = self._opened_clients

    def close(self) -> None:
        """Close the connections of `run` and `run_async` in all event loops; a later call opens new ones."""
        clients, self._clients = self._clients, None
        if clients is not None:
            clients[1].close_all()
            clients[0].close()


@component
class ColbertRetriever(_WithClients):
    """A Haystack component that returns the `top_k` best passages.

    Each Document's `id` is the passage's. Its `meta` has the document's fields, title and document_id; a field of one of these
    names takes precedence.
    """

    def __init__(
        self,
        address: str,
        bundle: str | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        candidates: str = "auto",
        weights: dict[str, float] | None = None,
        fusion: str | None = None,
        dense: str | None = None,
        rerank_with: str | None = None,
        rerank_with_top: int | None = None,
        device: str = "auto",
    ) -> None:
        """Create the component; index and model are opened by `warm_up` or the first run.

        Args:
            address: Folder of an index, or URL of Vespa, as for Client.
            bundle: Folder of the bundle, as for Client.
            filters: Filters in Haystack's form.
            top_k: Number of passages.
            candidates: A strategy of the index, several joined by `+`, or `auto`.
            weights: As for Client.search.
            fusion: As for Client.search.
            dense: As for Client.search.
            rerank_with: Folder of a cross-encoder.
            rerank_with_top: As for Client.search.
            device: Device of the model, as for Client.
        """
        _WithClients.__init__(self, address, bundle, device)  # no super(): `component` makes another class of this one
        self.filters, self.top_k, self.candidates = filters, top_k, candidates
        self.weights, self.fusion, self.dense = weights, fusion, dense
        self.rerank_with, self.rerank_with_top = rerank_with, rerank_with_top

    def to_dict(self) -> dict[str, Any]:
        """Return the component as Haystack writes it to a pipeline file."""
        return default_to_dict(
            self, address=self.address, bundle=self.bundle, filters=self.filters, top_k=self.top_k,
            candidates=self.candidates, weights=self.weights, fusion=self.fusion, dense=self.dense,
            rerank_with=self.rerank_with, rerank_with_top=self.rerank_with_top, device=self.device,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ColbertRetriever:
        """Create the component from what `to_dict` returned."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, list[Document]]:
        """Return the best passages for a query.

        Args:
            query: The query.
            filters: Filters for this call, instead of the retriever's.
            top_k: Number of passages for this call, instead of the retriever's.

        Raises:
            UsageError: If an argument is not valid.
            FilterError: If the filters name an unknown field or operator.
            LocalIndexError: If the index is missing or damaged.
            VespaError: If Vespa does not answer or refuses the query.
        """
        found = self._opened_clients[0].search(query, **self._arguments(filters, top_k))
        return {"documents": [_document(hit) for hit in found.hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Call the index like `run`, asynchronously."""
        found = await self._opened_clients[1].search(query, **self._arguments(filters, top_k))
        return {"documents": [_document(hit) for hit in found.hits]}

    def _arguments(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        where = where_of(self.filters if filters is None else filters)
        return {
            "k": self.top_k if top_k is None else top_k, "where": where, "candidates": self.candidates,
            "weights": self.weights, "fusion": self.fusion, "dense": self.dense,
            "rerank_with": self.rerank_with, "rerank_with_top": self.rerank_with_top,
        }  # fmt: skip


@component
class ColbertRanker(_WithClients):
    """A Haystack component that ranks the documents of any retriever by MaxSim and returns copies of the `top_k` best."""

    def __init__(self, address: str, bundle: str | None = None, top_k: int = 10, device: str = "auto") -> None:
        """Create the component.

        Args:
            address: Folder of an index, or URL of Vespa, whose model is used.
            bundle: Folder of the bundle, as for Client.
            top_k: Number of documents.
            device: Device of the model.
        """
        _WithClients.__init__(self, address, bundle, device)  # no super(): `component` makes another class of this one
        self.top_k = top_k

    def to_dict(self) -> dict[str, Any]:
        """Return the component as Haystack writes it to a pipeline file."""
        return default_to_dict(self, address=self.address, bundle=self.bundle, top_k=self.top_k, device=self.device)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ColbertRanker:
        """Create the component from what `to_dict` returned."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Return the best of the given documents for a query.

        Raises:
            UsageError: If the query is blank.
        """
        hits = self._opened_clients[0].rerank(query, _numbered(documents), self.top_k if top_k is None else top_k)
        return {"documents": _chosen(documents, hits)}

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank like `run`, asynchronously."""
        hits = await self._opened_clients[1].rerank(query, _numbered(documents), self.top_k if top_k is None else top_k)
        return {"documents": _chosen(documents, hits)}


def where_of(filters: dict[str, Any] | None) -> dict[str, Any]:
    """Convert Haystack's filters to a `where`; empty without any.

    Raises:
        FilterError: If an operator or the shape is not one of Haystack's.
    """
    if not filters:
        return {}
    operator = filters.get("operator")
    if operator in ("AND", "OR", "NOT"):
        parts = [where_of(part) for part in filters.get("conditions", ())]
        joined = {"$or" if operator == "OR" else "$and": parts}
        return {"$not": joined} if operator == "NOT" else joined
    if operator not in _COMPARISONS or not isinstance(filters.get("field"), str) or "value" not in filters:
        wanted = "give field, operator and value, or operator and conditions"
        raise FilterError(f"not a Haystack filter: {str(filters)[:80]}; {wanted}")
    field, value = filters["field"].removeprefix("meta."), filters["value"]
    if value is None and operator in ("==", "!="):
        return {field: {"$exists": operator == "!="}}
    return {field: {_COMPARISONS[operator]: value}}


def _document(hit: Hit) -> Document:
    title = {"title": hit.title} if hit.title else {}
    meta = {"document_id": hit.id, **title, **whole_metadata(hit.metadata)}
    return Document(id=hit.passage_id, content=hit.text, meta=meta, score=hit.score)


def _numbered(documents: Sequence[Document]) -> list[IndexDocument]:
    return [IndexDocument(str(place), title_of(d.meta), d.content or "") for place, d in enumerate(documents)]


def _chosen(documents: Sequence[Document], hits: Sequence[Hit]) -> list[Document]:
    return [dataclasses.replace(documents[int(hit.id)], score=hit.score) for hit in hits]
