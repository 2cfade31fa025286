"""The operations behind the routes: the client's plans, run off the event loop, with limits and deadlines."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np

from colbert_vespa.server.access import Access
from colbert_vespa.server.batching import Gathering
from colbert_vespa.server.catalog import Catalog, ServedIndex
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.limits import LATE, Gate, within
from colbert_vespa.server.metrics import ServerMetrics
from colbert_vespa.server.settings import ServedAddress, ServerSettings
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.cores import cores
from late_interaction.cross_encoder import CrossEncoder
from late_interaction.devices import AUTO as AUTO_DEVICE
from late_interaction.devices import CPU, Device
from late_interaction.documents import Document, Passage
from late_interaction.encoder import check_finite
from late_interaction.errors import UsageError
from query.backend import SearchIndex, Where, check_query, ready_query
from query.core import Core
from query.exchange import AsyncExchange
from query.merging import check_comparable
from query.options import AUTO, ClientSettings, Names, SearchOptions, check_documents
from query.plans import Plan, VespaAnswer, step
from query.reranking import reranked
from query.server import ServerIndex
from query.types import ById, EncodedQuery, Hit, Ids, Query, QueryVectors, SearchResult

__all__ = ["Engine", "Opened"]

T = TypeVar("T")
MOST_TOGETHER = 32  # queries that are encoded in one go
WARM_S = 600.0
WARM_WORDS, WARM_PASSAGES = 200, 8  # so that the cross-encoder knows its own pace


@dataclass(frozen=True)
class Opened:
    """The indexes in the state from which a whole response is computed.

    Attributes:
        until: Deadline, on the client's clock.
    """

    served: Sequence[ServedIndex]
    indexes: Sequence[SearchIndex]
    until: float


class Engine:
    """The operations behind the routes. Open one per process, and close it after use."""

    def __init__(
        self,
        addresses: Sequence[ServedAddress],
        bundle: Bundle | str | Path | None = None,
        settings: ServerSettings | None = None,
        *,
        precision: str | None = None,
        device: str | Device = AUTO_DEVICE,
        transport: httpx.AsyncBaseTransport | None = None,
        opening: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """bundle, precision, device: as Client has them. transport, opening, clock: for tests.

        Raises: LocalIndexError, BundleError, VespaError, UsageError.
        """
        self.settings = settings or ServerSettings()
        self.clock = clock
        client = ClientSettings(timeout=self.settings.timeout)
        self.core = Core(
            [given.address for given in addresses], bundle, settings=client, precision=precision, device=device,
            transport=opening, clock=clock,
        )  # fmt: skip
        for index in self.core.indexes.values():
            if isinstance(index, ServerIndex):
                raise UsageError(f"{index.server.url} is itself a server; give the address of its index, or of Vespa")
        rerank_with = self.settings.rerank_with
        on = CPU if Device.of(device) == AUTO_DEVICE else device
        self.cross_encoder = None if rerank_with is None else CrossEncoder(rerank_with, device=on)
        self.catalog = Catalog(addresses, self.core)
        self.gate = Gate(self.settings.running, self.settings.waiting)
        self.metrics = ServerMetrics(lambda: self.gate.running, lambda: self.gate.waiting)
        self._exchange = AsyncExchange(client, transport=transport, clock=clock)
        self._threads = ThreadPoolExecutor(2 * cores() + 2, thread_name_prefix="serve")
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="encode-queries")
        self._last_stage = ThreadPoolExecutor(self.settings.running, thread_name_prefix="last-stage")
        self._writers = ThreadPoolExecutor(len(addresses) or 1, thread_name_prefix="write")
        self._queries: dict[str, Gathering[str, Matrix]] = {}

    def warm(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Open every model, search every local index and query every application, so that no caller waits for it.

        Args:
            stopped: Asked between two of these steps whether to skip the remaining ones.
        """
        for served in self.catalog.indexes.values():
            if stopped():
                return
            index = self.core.named([served.known])[0]
            if not index.bundle.encodes:
                continue
            rows = self.core.encoder(index.bundle).encode_queries(["warm"])[0]
            for candidates in ("hybrid", "exhaustive") if served.backend == "local" else (AUTO,):
                if stopped():
                    return
                options = SearchOptions(1, candidates=candidates, explain=True, timeout=WARM_S)
                step(self.core.search_in([index], [EncodedQuery(rows, "warm")], options), None)
        if self.cross_encoder is not None:
            self.cross_encoder.scores("warm", ["warm " * WARM_WORDS] * WARM_PASSAGES)

    async def thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking call in the engine's threads and return its result."""
        work: Callable[[], T] = functools.partial(call, *arguments)
        result: T = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        return result

    @asynccontextmanager
    async def opened(self, access: Access, names: Names, timeout: float | None) -> AsyncIterator[Opened]:
        """Wait for a place among the running requests, and yield the indexes.

        Raises:
            Refusal: If the server is busy, or an index does not exist for the caller.
            UsageError: If an argument is not valid.
            LocalIndexError: If an index is damaged.
            VespaError: If Vespa does not answer.
        """
        served = self.catalog.chosen(access, names)
        until = self.core.deadline(timeout)
        async with self.gate.entered(until - self.clock()):
            indexes = await self.thread(self.core.named, [index.known for index in served], until)
            yield Opened(*self.catalog.fitting(access, served, indexes, names), until)

    @asynccontextmanager
    async def at_rest(self, name: str) -> AsyncIterator[Opened]:
        """Return an index for its writer, which does not count as a running request.

        Raises:
            LocalIndexError: If the index is damaged.
            VespaError: If Vespa does not answer.
        """
        served = self.catalog.indexes[name]
        until = self.core.deadline(None)
        yield Opened([served], await self.thread(self.core.named, [served.known], until), until)

    async def write_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking call in the threads of feeds, which are separate so that no search waits for a feed."""
        work: Callable[[], T] = functools.partial(call, *arguments)
        result: T = await asyncio.get_running_loop().run_in_executor(self._writers, work)
        return result

    async def run(self, plan: Plan[T], until: float, *, threads: ThreadPoolExecutor | None = None) -> T:
        """Run a plan and return its result.

        Args:
            plan: The plan.
            until: The deadline.
            threads: Threads to use instead of those of searches.

        Raises:
            Refusal: At the deadline.
            ColbertVespaError: As the plan.
        """
        return await within(until - self.clock(), self._driven(plan, threads or self._threads))

    async def _driven(self, plan: Plan[T], threads: ThreadPoolExecutor) -> T:
        answers: list[VespaAnswer] | None = None
        while True:
            asks, finished = await asyncio.get_running_loop().run_in_executor(threads, step, plan, answers)
            if asks is None:
                result: T = finished[0]
                return result
            answers = await self._exchange.ask(asks)

    async def encoded(self, queries: Sequence[Query], opened: Opened) -> list[EncodedQuery]:
        """Encode the queries, texts together with those of other requests.

        Raises:
            UsageError: If a query is blank or has another shape.
        """
        check_comparable(opened.indexes)
        bundle = opened.indexes[0].bundle
        dim = bundle.manifest.dim
        checked = [ready_query(q, dim) if isinstance(q, QueryVectors) else check_query(q, dim) for q in queries]
        start = time.perf_counter()
        texts = [query for query in checked if isinstance(query, str)] if bundle.encodes else []
        work = asyncio.gather(*map(self._gathering(bundle), dict.fromkeys(texts)))
        rows = dict(zip(dict.fromkeys(texts), await within(opened.until - self.clock(), work), strict=True)) if texts else {}
        took = time.perf_counter() - start
        none = np.zeros((0, dim), np.float32)
        made = {text: EncodedQuery(rows.get(text, none), text, took) for text in checked if isinstance(text, str)}
        own = [made[query] if isinstance(query, str) else query for query in checked]
        return [query if isinstance(query, EncodedQuery) else EncodedQuery(query, None, ready=True) for query in own]

    def _gathering(self, bundle: Bundle) -> Gathering[str, Matrix]:
        if bundle.sha256 not in self._queries:

            def encode(texts: list[str]) -> list[Matrix]:
                self.metrics.encoded(len(texts))
                rows = self.core.encoder(bundle).encode_together(texts)
                check_finite(rows, bundle)
                return rows

            async def work(texts: list[str]) -> list[Matrix]:
                return await asyncio.get_running_loop().run_in_executor(self._encoding, encode, texts)

            self._queries[bundle.sha256] = Gathering(work, MOST_TOGETHER)
        return self._queries[bundle.sha256]

    async def search(
        self, access: Access, queries: Sequence[Query], options: SearchOptions, timeout: float | None
    ) -> list[SearchResult]:
        """Return one result for each query.

        Raises:
            Refusal: If the server is busy or the deadline passes.
            ColbertVespaError: As for Client.search.
        """
        async with self.opened(access, options.index, timeout) as opened:
            encoded = await self.encoded(queries, opened)
            chosen = self.narrowed(access, options, opened)
            results = await self._searched(opened, encoded, chosen)
        for result in results:
            self.metrics.took(result.timings_ms)
        return [self.catalog.shown(access, result, opened.served) for result in results]

    async def stages(
        self, access: Access, query: Query, options: SearchOptions, timeout: float | None
    ) -> AsyncIterator[SearchResult]:
        """Yield the hits of the first stage, then the reranked hits, both from one version of the index.

        Raises:
            ColbertVespaError: As for search.
        """
        async with self.opened(access, options.index, timeout) as opened:
            encoded = await self.encoded([query], opened)
            last = self.narrowed(access, options, opened)
            both = [asyncio.ensure_future(self._searched(opened, encoded, each)) for each in (last.for_first_stage(), last)]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if both[0].done() and not both[1].done():
                    yield self.catalog.shown(access, both[0].result()[0], opened.served)
                (result,) = await both[1]
                self.metrics.took(result.timings_ms)
                yield self.catalog.shown(access, result, opened.served)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)

    async def _searched(self, opened: Opened, queries: Sequence[EncodedQuery], options: SearchOptions) -> list[SearchResult]:
        """Searches that wait for the cross-encoder have threads of their own, so that no other waits with them."""
        threads = None if options.rerank_with is None else self._last_stage
        return await self.run(self.core.search_in(opened.indexes, queries, options), opened.until, threads=threads)

    def narrowed(self, access: Access, options: SearchOptions, opened: Opened) -> SearchOptions:
        """Return the options with the filter of the key, the remaining time, and the cross-encoder if it is asked for.

        Raises:
            Refusal: If no time is left.
            UsageError: If a cross-encoder is asked for and the server has none.
        """
        left = opened.until - self.clock()
        if left <= 0:
            raise Refusal(504, LATE)
        reads = options.rerank_with_top is not None
        if reads and self.cross_encoder is None:
            raise UsageError("rerank_with_top: this server has no cross-encoder, as it was started without --rerank-with")
        rerank_with = self.cross_encoder if reads else None
        return replace(options, where=access.restricted(options.where), index=None, timeout=left, rerank_with=rerank_with)

    async def rerank_stored(self, access: Access, query: Query, options: SearchOptions, timeout: float | None) -> SearchResult:
        """Rerank the documents `options.ids` by MaxSim over their stored vectors.

        Raises:
            ColbertVespaError: As for search.
        """
        async with self.opened(access, options.index, timeout) as opened:
            encoded = await self.encoded([query], opened)
            exact = all("exhaustive" in index.strategies for index in opened.indexes)
            chosen = replace(options, candidates="exhaustive" if exact else AUTO)
            chosen = self.narrowed(access, chosen, opened)
            (result,) = await self.run(self.core.search_in(opened.indexes, encoded, chosen), opened.until)
        return self.catalog.shown(access, result, opened.served)

    async def rerank_texts(
        self, access: Access, query: Query, texts: Sequence[str | Document], options: SearchOptions, timeout: float | None
    ) -> tuple[Hit, ...]:
        """Rerank texts or documents.

        Raises:
            Refusal: If the server is busy or the deadline passes.
            ColbertVespaError: As for Client.rerank.
        """
        async with self.opened(access, self._first(access, options.index), timeout) as opened:
            bundle, documents = opened.indexes[0].bundle, check_documents(texts)
            most = min(options.k, len(documents)) or 1
            encoder = functools.partial(self.core.encoder, bundle)
            work = self.thread(reranked, bundle, encoder, query, documents, most, options.explain)
            return await within(opened.until - self.clock(), work)

    async def encode(
        self, access: Access, queries: Sequence[str], documents: Sequence[str], index: Names, timeout: float | None
    ) -> list[Matrix]:
        """Return the rows `[n, d]` of each query or document.

        Raises:
            UsageError: If a text is not valid.
            Refusal: If the server is busy or the deadline passes.
        """
        async with self.opened(access, self._first(access, index), timeout) as opened:
            if queries and opened.indexes[0].bundle.encodes:
                return [encoded.rows for encoded in await self.encoded(queries, opened)]
            encoder = await self.thread(self.core.encoder, opened.indexes[0].bundle)
            work = self.thread(encoder.encode_documents, list(documents))
            return await within(opened.until - self.clock(), work)

    def _first(self, access: Access, names: Names) -> str:
        """Return the name of the one index that a request uses; UsageError if it names several."""
        if names is not None:
            return self.catalog.only(access, _one(names)).name
        return self.catalog.chosen(access, None)[0].name

    async def get(
        self, access: Access, ids: Sequence[str], name: str, timeout: float | None = None, where: Where = None
    ) -> ById[tuple[Passage, ...]]:
        """Return the stored passages of documents.

        Raises:
            Refusal: If the server is busy or the deadline passes.
            ColbertVespaError: As for Client.get.
        """
        async with self.opened(access, name, timeout) as opened:
            found = await self.run(opened.indexes[0].get(ids, access.restricted(where), opened.until), opened.until)
            return ById({id_: found[id_] for id_ in ids if id_ in found}, found.coverage, found.degraded)

    async def select(self, access: Access, where: Where, limit: int, name: str, timeout: float | None) -> Ids:
        """Return the ids of the documents that a filter selects.

        Raises:
            Refusal: If the server is busy or the deadline passes.
            ColbertVespaError: As for Client.select.
        """
        async with self.opened(access, name, timeout) as opened:
            restricted = access.restricted(where)
            return await self.run(opened.indexes[0].select(restricted, limit, opened.until), opened.until)

    async def close(self) -> None:
        """Stop the threads and close the indexes and models."""
        await self._exchange.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._encoding.shutdown(wait=False, cancel_futures=True)
        self._last_stage.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.core.close)


def _one(names: Names) -> str | None:
    if names is None or isinstance(names, str):
        return names
    if len(names) != 1:
        raise UsageError("name one index here")
    return names[0]
