"""One interface, two backends: a folder path opens a local index, http(s)://host:port a Vespa application."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.metadata import MetadataSchema
from query.types import SearchResult

__all__ = ["Question", "Retriever", "open_retriever"]

Question: TypeAlias = str | NDArray[np.float32]


class Retriever(Protocol):
    """Both backends take the same arguments and raise the same errors."""

    @property
    def address(self) -> str: ...
    @property
    def bundle(self) -> Bundle: ...
    @property
    def encoder(self) -> Encoder: ...
    @property
    def schema(self) -> MetadataSchema: ...
    @property
    def strategies(self) -> tuple[str, ...]:
        """Names that `candidates` takes here; the first is the default."""
        ...

    def search(
        self,
        query: Question,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
        rerank: int | None = None,
        group: bool = False,
    ) -> SearchResult:
        """The best k passages for a query text or ready query rows `[q, d]`. group: the best passage of each of k documents.

        Raises: FilterError, UsageError (k or rerank out of range, unknown strategy), LocalIndexError, VespaError.
        """
        ...

    def close(self) -> None: ...


def open_retriever(address: str, bundle: str | Path | None = None, *, precision: str | None = None) -> Retriever:
    """`bundle`: needed for Vespa where the application's own bundle is not known on this machine.

    Raises: LocalIndexError, BundleError, VespaError, UsageError.
    """
    from vespa_app.addresses import is_url

    if is_url(address):
        from query.vespa import VespaRetriever

        return VespaRetriever(address, Bundle.open(bundle) if bundle else None, precision=precision)
    from query.local import LocalRetriever

    return LocalRetriever(Path(address), precision=precision)
