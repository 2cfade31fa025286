"""A LangChain document index: documents are put, read, deleted and searched."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.indexing import DeleteResponse, UpsertResponse
from langchain_core.indexing.base import DocumentIndex
from langchain_core.retrievers import LangSmithRetrieverParams

from colbert_vespa.langchain.conversion import from_document, to_document
from colbert_vespa.langchain.retriever import ColbertRetriever, tracing
from colbert_vespa.store import DocumentStore
from feeder import Splitting
from late_interaction.bundle import Bundle
from late_interaction.cross_encoder import CrossEncoder
from late_interaction.errors import UsageError

__all__ = ["ColbertDocumentIndex"]

_log = logging.getLogger(__name__)
_OPENING = threading.Lock()


class ColbertDocumentIndex(DocumentIndex):
    """A LangChain document index over a local index or Vespa. Close it after use.

    A missing local index is created by the first `upsert`. As a retriever, the index takes the options of ColbertRetriever.

    Metadata without a field in the index are kept in the field `metadata_json` (of type string; a Vespa application must have
    it) and cannot be filtered by.
    """

    store: DocumentStore
    k: int = 10
    where: dict[str, Any] | None = None
    candidates: str = "auto"
    rerank_with: CrossEncoder | str | Path | None = None
    rerank_with_top: int | None = None

    _retriever: ColbertRetriever | None = None

    @classmethod
    def from_address(
        cls,
        address: str | Path,
        bundle: Bundle | str | Path | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        splitting: Splitting | None = None,
        k: int = 10,
        where: Mapping[str, object] | None = None,
        candidates: str = "auto",
        rerank_with: CrossEncoder | str | Path | None = None,
        rerank_with_top: int | None = None,
        device: str = "auto",
    ) -> ColbertDocumentIndex:
        """Open a store and return a document index over it.

        The arguments bundle, fields (of metadata), splitting and device are those of DocumentStore.

        Raises:
            ColbertVespaError: As for DocumentStore.
        """
        store = DocumentStore(address, bundle, fields=fields, splitting=splitting, device=device)
        filter_ = None if where is None else dict(where)
        return cls(
            store=store, k=k, where=filter_, candidates=candidates, rerank_with=rerank_with, rerank_with_top=rerank_with_top
        )

    def upsert(self, items: Sequence[Document], /, **kwargs: Any) -> UpsertResponse:
        """Put documents; those without an id get one. Failures are also logged with their reasons.

        Raises:
            MetadataError: If a value does not fit its field; nothing is written then.
            LocalIndexError: If the index is damaged or cannot be written.
            VespaError: If Vespa does not answer.
        """
        _check_no_options(kwargs)
        outcome = self.store.put([to_document(item, item.id or str(uuid.uuid4())) for item in items])
        _log_failures(outcome.failed)
        return UpsertResponse(succeeded=list(outcome.succeeded), failed=list(outcome.failed))

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> DeleteResponse:
        """Delete documents by id.

        Args:
            ids: Ids of the documents.
            kwargs: Not used; any option is an error.

        Returns:
            The deleted ids, and those that could not be deleted.

        Raises:
            ValueError: If no ids are given.
            LocalIndexError: If the index cannot be written.
            VespaError: If Vespa does not answer.
        """
        _check_no_options(kwargs)
        if ids is None:
            raise ValueError("delete needs ids; without ids nothing is deleted")
        outcome = self.store.delete(ids)
        _log_failures(outcome.failed)
        return DeleteResponse(
            succeeded=list(outcome.succeeded), failed=list(outcome.failed), num_deleted=len(outcome.succeeded),
            num_failed=len(outcome.failed),
        )  # fmt: skip

    def get(self, ids: Sequence[str], /, **kwargs: Any) -> list[Document]:
        """Return the whole documents that exist."""
        _check_no_options(kwargs)
        return [from_document(document) for document in self.store.get(ids)]

    async def aclose(self) -> None:
        """Close the connections opened by async searches in this event loop."""
        if self._retriever is not None:
            await self._retriever.aclose()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
    ) -> list[Document]:
        retriever = self._opened_retriever()
        if retriever is None:
            return []
        return retriever._get_relevant_documents(query, run_manager=run_manager, **self._chosen(k, where, candidates))

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
    ) -> list[Document]:
        retriever = self._opened_retriever()
        if retriever is None:
            return []
        return await retriever._aget_relevant_documents(query, run_manager=run_manager, **self._chosen(k, where, candidates))

    def _chosen(self, k: int | None, where: Mapping[str, object] | None, candidates: str | None) -> dict[str, Any]:
        """Return the options of a call, with the index's current ones as defaults."""
        return {
            "k": self.k if k is None else k,
            "where": (self.where or {}) if where is None else where,
            "candidates": candidates or self.candidates,
        }

    def _opened_retriever(self) -> ColbertRetriever | None:
        """Return the retriever; None as long as there is no index."""
        with _OPENING:
            if self._retriever is None and self.store.client is not None:
                self._retriever = ColbertRetriever(
                    client=self.store.client, rerank_with=self.rerank_with, rerank_with_top=self.rerank_with_top
                )
            return self._retriever

    def _get_ls_params(self, **_kwargs: Any) -> LangSmithRetrieverParams:
        return super()._get_ls_params() if self.store.client is None else tracing(self.store.client)


def _check_no_options(options: Mapping[str, object]) -> None:
    """Reject unknown options with UsageError."""
    if options:
        raise UsageError(f"unknown options: {', '.join(options)}; an index accepts only documents or ids")


def _log_failures(failed: Mapping[str, str]) -> None:
    for id_, why in failed.items():
        _log.warning("document %r: %s", id_, why)
