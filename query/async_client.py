"""The async client: the same plans; what computes runs in a thread, so that the event loop is never held up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import httpx

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from query.client import Client, ClientArguments
from query.core import Addresses, Core
from query.exchange import AsyncExchange
from query.options import ClientSettings, Names, SearchOptions, takes_options
from query.plans import Plan, VespaAnswer, step
from query.types import ById, Hit, Ids, Query, SearchResult
from vespa_app.settings.application_settings import MAX_HITS

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """As Client. It is opened by the first call, or by `async with`. Connections belong to an event loop: `close` ends those of
    the loop that it is called in."""

    def __init__(
        self,
        address: Addresses,
        bundle: Bundle | str | Path | None = None,
        *,
        settings: ClientSettings | None = None,
        precision: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        opening: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """As Client, whose errors the first call raises. opening: the transport by which applications are read."""
        own_parts = transport is not None or opening is not None
        self._given = ClientArguments(address, bundle, settings, precision, own_parts)
        self._open: Callable[[], Core] = lambda: Core(
            address, bundle, settings=settings, precision=precision, transport=opening, clock=clock
        )
        self._exchange = AsyncExchange(settings or ClientSettings(), transport=transport, clock=clock, sleep=sleep)
        self._core: Core | None = None
        self._shared = False
        self._opening = threading.Lock()

    @classmethod
    def from_client(cls, client: Client) -> AsyncClient:
        """One that has its indexes, encoder and settings in common with `client`, and connections of its own."""
        given = client._given
        made = cls(given.address, given.bundle, settings=client._core.settings, precision=given.precision)
        made._core, made._shared, made._given = client._core, True, given
        return made

    def __reduce__(self) -> tuple[object, ...]:
        """A copy, also one that was pickled, opens the same indexes anew."""
        return self._given.reopening(AsyncClient)

    @takes_options(SearchOptions)
    async def search(self, query: Query, options: SearchOptions) -> SearchResult:
        """As Client.search. A search that is cancelled asks nothing more."""
        core = await self._opened()
        return await self._run(core.search(query, options))

    @takes_options(SearchOptions)
    async def search_many(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        """As Client.search_many."""
        core = await self._opened()
        return await self._run(core.search_many(queries, options))

    @takes_options(SearchOptions)
    async def stages(self, query: Query, options: SearchOptions) -> AsyncIterator[SearchResult]:
        """First the k best candidates as the first stage orders them (`stage` is `candidates`), then the reranked hits
        (`reranked`). Both are asked for at once, so that the second comes no later than by `search`; where it comes first, it
        is all that comes. Arguments as `search` has them, without offset and scored.
        """
        core, early = await self._opened(), options.for_first_stage()
        at = await asyncio.to_thread(core.named, options.index, core.deadline(options.timeout))  # one version for both
        first, last = (asyncio.ensure_future(self._run(core.search(query, each, at))) for each in (early, options))
        try:
            await asyncio.wait((first, last), return_when=asyncio.FIRST_COMPLETED)
            if first.done() and not last.done():
                yield first.result()
            yield await last
        finally:
            for task in (first, last):
                task.cancel()
            await asyncio.gather(first, last, return_exceptions=True)

    async def score(
        self, query: Query, ids: Sequence[str], *, index: Names = None, timeout: float | None = None
    ) -> ById[float]:
        """As Client.score."""
        core = await self._opened()
        return await self._run(core.score(query, ids, index, timeout))

    async def get(
        self,
        ids: Sequence[str],
        *,
        where: Mapping[str, object] | None = None,
        index: Names = None,
        timeout: float | None = None,
    ) -> ById[tuple[Passage, ...]]:
        """As Client.get."""
        core = await self._opened()
        return await self._run(core.get(ids, where, index, timeout))

    async def select(
        self,
        where: Mapping[str, object] | None = None,
        limit: int = MAX_HITS,
        *,
        index: Names = None,
        timeout: float | None = None,
    ) -> Ids:
        """As Client.select."""
        core = await self._opened()
        return await self._run(core.select(where, limit, index, timeout))

    async def vectors(self, ids: Sequence[str], *, index: Names = None, timeout: float | None = None) -> ById[Matrix]:
        """As Client.vectors."""
        core = await self._opened()
        return await self._run(core.vectors(ids, index, timeout))

    async def rerank(
        self, query: Query, documents: Sequence[str | Document], k: int | None = None, *, explain: bool = False
    ) -> tuple[Hit, ...]:
        """As Client.rerank."""
        core = await self._opened()
        return await asyncio.to_thread(core.rerank, query, documents, k, explain)

    def close_all(self) -> None:
        """As `close`, with the connections of all event loops, and where none need run."""
        self._exchange.close_all()
        if self._core is not None and not self._shared:
            self._core.close()

    async def close(self) -> None:
        await self._exchange.close()
        if self._core is not None and not self._shared:
            await asyncio.to_thread(self._core.close)

    async def __aenter__(self) -> AsyncClient:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _opened(self) -> Core:
        if self._core is not None:
            return self._core
        return await asyncio.to_thread(self._open_once)

    def _open_once(self) -> Core:
        with self._opening:  # callers of several event loops
            if self._core is None:
                self._core = self._open()
            return self._core

    async def _run(self, plan: Plan[T]) -> T:
        answers: list[VespaAnswer] | None = None
        while True:
            asks, result = await asyncio.to_thread(step, plan, answers)
            if asks is None:
                return result[0]
            answers = await self._exchange.ask(asks)
