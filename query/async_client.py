"""The async client: the same plans as the sync one; computation runs in a thread, so the event loop is never blocked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx

from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO, Device
from query.client import Client, ClientArguments
from query.core import Addresses, Core
from query.exchange import AsyncExchange
from query.options import ClientSettings, SearchOptions, takes_options
from query.plans import Plan, VespaAnswer, answering, step
from query.types import Query, SearchResult

__all__ = ["AsyncClient"]

T = TypeVar("T")
P = ParamSpec("P")


def _awaited(
    operation: Callable[Concatenate[Core, P], Plan[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Return the client method that runs an operation of its core."""

    @answering(operation)
    async def run(client: AsyncClient, /, *args: P.args, **named: P.kwargs) -> T:
        core = await client._opened()
        return await client._run(operation(core, *args, **named))

    return run


class AsyncClient:
    """The async form of `Client`, with `stages` in addition.

    It is opened by the first call, or by `async with`. A cancelled search sends nothing more. Connections belong to an
    event loop; `close` ends those of the loop that it is called in.
    """

    def __init__(
        self,
        address: Addresses,
        bundle: Bundle | str | Path | None = None,
        *,
        settings: ClientSettings | None = None,
        precision: str | None = None,
        device: str | Device = AUTO,
        transport: httpx.AsyncBaseTransport | None = None,
        opening: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare a client; arguments are those of `Client`.

        A malformed address is rejected here, everything else by the first call. opening: the transport by which
        applications are read.
        """
        own_parts = transport is not None or opening is not None
        self._given = ClientArguments(address, bundle, settings, precision, device, own_parts)
        self._open: Callable[[], Core] = lambda: Core(
            address, bundle, settings=settings, precision=precision, device=device, transport=opening, clock=clock
        )
        self._exchange = AsyncExchange(settings or ClientSettings(), transport=transport, clock=clock, sleep=sleep)
        self._core: Core | None = None
        self._shared = False
        self._opening = threading.Lock()

    @classmethod
    def from_client(cls, client: Client) -> AsyncClient:
        """Return a client that shares indexes, encoder and settings with `client`, with its own connections."""
        given = client._given
        made = cls(given.address, given.bundle, settings=client._core.settings, precision=given.precision, device=given.device)
        made._core, made._shared, made._given = client._core, True, given
        return made

    def __reduce__(self) -> tuple[object, ...]:
        """Support copying and pickling; the copy opens the same indexes again."""
        return self._given.reopening(AsyncClient)

    search = takes_options(SearchOptions)(_awaited(Core.search))
    search_many = takes_options(SearchOptions)(_awaited(Core.search_many))
    score = _awaited(Core.score)
    get = _awaited(Core.get)
    select = _awaited(Core.select)
    vectors = _awaited(Core.vectors)
    rerank = _awaited(Core.rerank)

    @takes_options(SearchOptions)
    async def stages(self, query: Query, options: SearchOptions) -> AsyncIterator[SearchResult]:
        """Yield the k best candidates in the first stage's order, then the reranked hits.

        The results' `stage` is `candidates` and `reranked`. Both are requested at once, so the second is as fast as with
        `search`; if it arrives first, it is the only one.

        Args:
            query: the query.
            options: as in `search`, without offset and scored.

        Raises:
            ColbertVespaError: as in `search`.
        """
        core, early = await self._opened(), options.for_first_stage()
        at = await asyncio.to_thread(core.named, options.index, core.deadline(options.timeout))  # one version for both stages
        first, last = (asyncio.ensure_future(self._run(core.search_in(at, [query], each))) for each in (early, options))
        try:
            await asyncio.wait((first, last), return_when=asyncio.FIRST_COMPLETED)
            if first.done() and not last.done():
                result = first.result()[0]
                yield result
                if result.stage == "reranked":  # from `exhaustive`, or a server whose second stage came first
                    return
            yield (await last)[0]
        finally:
            for task in (first, last):
                task.cancel()
            await asyncio.gather(first, last, return_exceptions=True)

    def close_all(self) -> None:
        """Close the connections of all event loops, even if none is running."""
        self._exchange.close_all()
        if self._core is not None and not self._shared:
            self._core.close()

    async def close(self) -> None:
        """Close the connections of this event loop."""
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
        with self._opening:  # callers from several event loops
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
