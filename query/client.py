"""The sync client."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import httpx

from late_interaction.addresses import as_path, locate
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from query.backend import SearchIndex
from query.core import Addresses, Core, addresses_of
from query.exchange import Exchange
from query.options import ClientSettings, Names, SearchOptions, takes_options
from query.plans import Plan
from query.types import ById, Hit, Ids, Query, SearchResult
from vespa_app.settings.application_settings import MAX_HITS

__all__ = ["Client", "ClientArguments"]

T = TypeVar("T")


@dataclass(frozen=True)
class ClientArguments:
    """What a client was opened with. own_parts: whether that includes a transport, which cannot be opened anew."""

    address: Addresses
    bundle: Bundle | str | Path | None
    settings: ClientSettings | None
    precision: str | None
    own_parts: bool

    def __post_init__(self) -> None:
        """Paths are made absolute, as a copy may be opened in another folder."""
        places = [
            place.absolute() if isinstance(place := locate(one), Path) else str(place) for one in addresses_of(self.address)
        ]
        object.__setattr__(self, "address", places)
        if isinstance(self.bundle, (str, Path)):
            object.__setattr__(self, "bundle", as_path(self.bundle).absolute())

    def reopening(self, kind: type) -> tuple[object, ...]:
        """As `__reduce__` gives it. Raises: UsageError where a transport was given."""
        if self.own_parts:
            raise UsageError("a client with a transport of its own cannot be copied or pickled: open another one")
        return functools.partial(kind, settings=self.settings, precision=self.precision), (self.address, self.bundle)


class Client:
    """Searches a local index (a folder) or a Vespa application (`http(s)://host:port`, with `#NAME` for one of its indexes), or
    several of them; with a bundle and no address (`[]`) it can only rerank. Threads may share one. Close it, or use it in
    `with`."""

    def __init__(
        self,
        address: Addresses,
        bundle: Bundle | str | Path | None = None,
        *,
        settings: ClientSettings | None = None,
        precision: str | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """bundle: needed for Vespa where the application's own bundle is not known on this machine. precision: of the model,
        None for the bundle's default. transport, clock, sleep: for tests.

        Raises: LocalIndexError, BundleError, VespaError, UsageError.
        """
        self._given = ClientArguments(address, bundle, settings, precision, transport is not None)
        self._core = Core(address, bundle, settings=settings, precision=precision, transport=transport, clock=clock)
        self._exchange = Exchange(self._core.settings, transport=transport, clock=clock, sleep=sleep)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Names that `index` takes."""
        return tuple(self._core.indexes)

    @property
    def address(self) -> str:
        """Of the first index that is asked by default; '' without an index."""
        return self._first.address if self._core.indexes else ""

    @property
    def bundle(self) -> Bundle:
        return self._core.bundle

    @property
    def schema(self) -> MetadataSchema:
        """Metadata fields of the first index."""
        return self._first.schema

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names that `candidates` takes for the first index, in its order of preference."""
        return self._first.strategies

    @property
    def encoder(self) -> Encoder:
        return self._core.encoder(self._core.bundle)

    @takes_options(SearchOptions)
    def search(self, query: Query, options: SearchOptions) -> SearchResult:
        """The best k passages for a text or ready rows `[q, d]`. Arguments: the fields of SearchOptions, k also by position.

        Raises: UsageError on an argument out of range, FilterError, IncompleteAnswer where the settings require full answers,
        LocalIndexError, VespaUnreachable, VespaTimeout, VespaBusy, VespaRefused.
        """
        return self._run(self._core.search(query, options))

    @takes_options(SearchOptions)
    def search_many(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        """As `search` for each of them, side by side: one result for each, in order."""
        return self._run(self._core.search_many(queries, options))

    def score(self, query: Query, ids: Sequence[str], *, index: Names = None, timeout: float | None = None) -> ById[float]:
        """MaxSim of the query with stored passages, by passage id (`hit.passage_id`); unknown ids are left out. Where the
        answer is not `full`, so may be others.

        Raises: as search.
        """
        return self._run(self._core.score(query, ids, index, timeout))

    def get(
        self,
        ids: Sequence[str],
        *,
        where: Mapping[str, object] | None = None,
        index: Names = None,
        timeout: float | None = None,
    ) -> ById[tuple[Passage, ...]]:
        """The stored passages of those documents, in their order, by document id; unknown ids are left out, and what the filter
        does not select. Where the answer is not `full`, passages and documents may be missing.

        Raises: as search.
        """
        return self._run(self._core.get(ids, where, index, timeout))

    def select(
        self,
        where: Mapping[str, object] | None = None,
        limit: int = MAX_HITS,
        *,
        index: Names = None,
        timeout: float | None = None,
    ) -> Ids:
        """Ids of the documents that a filter selects, in no order; all without one. limit: passages looked at, 10,000 at most.
        Where the answer is not `full`, ids may be missing.

        Raises: as get.
        """
        return self._run(self._core.select(where, limit, index, timeout))

    def vectors(self, ids: Sequence[str], *, index: Names = None, timeout: float | None = None) -> ById[Matrix]:
        """Stored unit rows `[t, d]` of passages by passage id, as the codec decodes them; unknown ids are left out.
        Where the answer is not `full`, so may be others.

        Raises: UsageError where the index cannot give them (layout chunks, mode streaming); as search.
        """
        return self._run(self._core.vectors(ids, index, timeout))

    def rerank(
        self, query: Query, documents: Sequence[str | Document], k: int | None = None, *, explain: bool = False
    ) -> tuple[Hit, ...]:
        """Texts or documents that need not be in the index, encoded here, by MaxSim; those without a word come last. The id of
        a text is its place.

        Raises: UsageError on a query that is blank or of another shape, a k below 1, or what is no list of texts or documents.
        """
        return self._core.rerank(query, documents, k, explain)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy, also one that was pickled, opens the same indexes anew."""
        return self._given.reopening(Client)

    def close(self) -> None:
        self._exchange.close()
        self._core.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _first(self) -> SearchIndex:
        return self._core.named()[0]

    def _run(self, plan: Plan[T]) -> T:
        answers = None
        while True:
            try:
                asks = plan.send(answers)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            answers = self._exchange.ask(asks)
