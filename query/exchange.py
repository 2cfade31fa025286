"""Send queries to Vespa or to our server: pooled connections, deadlines, retries, hedged requests.

The sync and the async form make the same decisions. A query changes nothing, so it may be retried: after a refused or
broken connection, and if Vespa asks to wait. It is not retried if Vespa refused it, or its time is up.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import httpx
import orjson

from late_interaction.errors import UsageError, VespaBusy, VespaError, VespaTimeout, VespaUnreachable
from query.options import ClientSettings
from query.plans import Ask, ServerQuery, VespaAnswer
from query.server_answer import SERVER, checked_server_answer
from query.vespa_answer import checked_answer
from vespa_app.running.credentials import key_header, tls_context, token_header
from vespa_app.running.http import Body, mapped_errors, parse_address

__all__ = ["AsyncExchange", "Exchange"]

T = TypeVar("T")
Clock = Callable[[], float]
LEAST_S = 0.005  # with less time than this nothing is sent
GRACE_S = 0.25  # how much longer the connection waits than Vespa, whose own timeout gives the better answer
FIRST_PAUSE_S = 0.05  # seconds before a retry if Vespa asks to wait; doubled each time
JSON = {"Content-Type": "application/json"}
LINES = "application/x-ndjson"


class _Policy:
    """The decisions that both exchanges share."""

    def __init__(self, settings: ClientSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock

    def content(self, ask: Ask) -> tuple[bytes, float]:
        """Return the body with the time left, and how long the connection waits."""
        left = ask.deadline - self.clock()
        if left < LEAST_S:
            raise VespaTimeout(f"the time for the query was up before it was sent to {ask.url}; raise timeout")
        if isinstance(ask, ServerQuery):
            time_of: dict[str, object] = {"timeout": left}
        else:
            time_of = {"timeout": f"{left:.3f}s", "ranking.softtimeout.enable": self.settings.soft_timeout}
        try:
            return orjson.dumps({**ask.body, **time_of}), left + GRACE_S
        except orjson.JSONEncodeError as error:
            raise UsageError(f"the query cannot be written as JSON: {error}") from None

    def pause(self, error: VespaError, sent: int, deadline: float) -> float | None:
        """Return seconds to wait before a retry, or None for no retry."""
        busy = isinstance(error, VespaBusy)
        lost = isinstance(error, VespaUnreachable) and not isinstance(error, VespaTimeout)
        if sent > self.settings.retries or not (busy or lost):
            return None
        pause = FIRST_PAUSE_S * 2 ** (sent - 1) * random.uniform(0.5, 1.5) if busy or sent > 1 else 0.0
        if isinstance(error, VespaBusy):
            pause = max(pause, error.retry_after)
        return pause if self.clock() + pause + LEAST_S < deadline else None

    def transport_arguments(self, address: httpx.URL) -> dict[str, Any]:
        """Return arguments of a pooled transport for one address."""
        most = self.settings.connections
        return {
            "verify": tls_context() if address.scheme == "https" else True,
            "limits": httpx.Limits(max_connections=most, max_keepalive_connections=most),
            "http2": address.scheme == "https",
        }


class _Reading:
    """Reads one answer. A connection waits for each block separately, so the time is checked here."""

    def __init__(self, ask: Ask, clock: Clock, patience: float) -> None:
        self._ask, self._clock, self._until = ask, clock, clock() + patience
        self._body = Body(ask.url)
        self.ended = False

    def add(self, block: bytes) -> None:
        """Add a block; `ended` is set when no more is wanted."""
        self._body.add(block)
        if self._clock() > self._until:
            raise VespaTimeout(
                f"{self._ask.url} did not answer in time; check that {kind_of(self._ask)} is up and "
                f"not overloaded, or raise timeout"
            )
        self.ended = isinstance(self._ask, ServerQuery) and self._ask.first_line and b"\n" in block

    def checked(self, response: httpx.Response) -> Mapping[str, Any]:
        """Return the checked answer."""
        whole = self._body.of(response)
        if isinstance(self._ask, ServerQuery):
            return checked_server_answer(whole, self._ask.url, first_line=self._ask.first_line)
        return checked_answer(whole, self._ask.url)


def kind_of(ask: Ask) -> str:
    """Return what the request goes to, for messages."""
    return SERVER if isinstance(ask, ServerQuery) else "Vespa"


class _Connection(Generic[T]):
    """A transport and the head of every request over it.

    httpx's client above it would cost a third of a query's time here, for redirects and cookies that a query does not use.
    """

    def __init__(self, ask: Ask, transport: T) -> None:
        """Open a transport. ask: the first request."""
        parsed = parse_address(ask.url)
        self.transport = transport
        self._url, self._search = parsed, parsed.join("/search/")
        secret = key_header(parsed) if isinstance(ask, ServerQuery) else token_header(parsed)
        self._headers = httpx.Headers({"Host": parsed.netloc.decode("ascii"), **JSON, **secret})

    def request(self, ask: Ask, content: bytes, patience: float) -> httpx.Request:
        times = dict.fromkeys(("connect", "read", "write", "pool"), patience)
        target, headers = self._search, self._headers
        if isinstance(ask, ServerQuery):
            target = self._url.join(ask.path)
            headers = httpx.Headers({**headers, "Accept": LINES}) if ask.first_line else headers
        return httpx.Request("POST", target, headers=headers, content=content, extensions={"timeout": times})


class _Connections(Generic[T]):
    """One connection to each address. given: a transport for all of them; otherwise `make` makes one for each."""

    def __init__(self, policy: _Policy, given: T | None, make: Callable[..., T]) -> None:
        self._policy, self._given, self._make = policy, given, make
        self._made: dict[str, _Connection[T]] = {}
        self._making = threading.Lock()

    def to(self, ask: Ask) -> _Connection[T]:
        """Return the connection to an address."""
        url = ask.url
        with self._making:
            if url not in self._made:
                transport = self._given or self._make(**self._policy.transport_arguments(parse_address(url)))
                self._made[url] = _Connection(ask, transport)
            return self._made[url]

    def transports(self) -> list[T]:
        return [connection.transport for connection in self._made.values()]


class Exchange:
    """Sends requests, blocking. Close it after use."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.clock = clock
        self._policy = _Policy(settings, clock)
        self._sleep = sleep
        self._connections = _Connections[httpx.BaseTransport](self._policy, transport, httpx.HTTPTransport)
        self._pool: ThreadPoolExecutor | None = None
        self._making = threading.Lock()

    def ask(self, asks: Sequence[Ask]) -> list[VespaAnswer]:
        """Send all requests at once; return the answers in their order.

        Raises:
            VespaError: the first that happens.
        """
        hedged = self._policy.settings.hedge_after
        if hedged is None:
            return [self._ask(asks[0])] if len(asks) == 1 else list(self._threads.map(self._ask, asks))
        begun = [(ask, self._threads.submit(self._ask, ask)) for ask in asks]
        until = self.clock() + hedged
        return [self._first(ask, first, max(0.0, until - self.clock())) for ask, first in begun]

    def _first(self, ask: Ask, first: Future[VespaAnswer], patience: float) -> VespaAnswer:
        if wait([first], timeout=patience).done:
            return first.result()
        pair = {first, self._threads.submit(self._ask, ask)}
        while True:
            done, pending = wait(pair, return_when=FIRST_COMPLETED)
            good = [future for future in done if future.exception() is None]
            if good or not pending:
                for future in pending:
                    future.cancel()
                return (good or list(done))[0].result()
            pair = pending

    def _ask(self, ask: Ask) -> VespaAnswer:
        start = self.clock()
        connection, sent = self._connections.to(ask), 0
        while True:
            sent += 1
            try:
                content, patience = self._policy.content(ask)
                with mapped_errors(ask.url, kind_of(ask)):
                    response = connection.transport.handle_request(request := connection.request(ask, content, patience))
                    response.request, reading = request, _Reading(ask, self.clock, patience)
                    try:
                        for block in response.iter_bytes():
                            reading.add(block)
                            if reading.ended:
                                break
                    finally:
                        response.close()
                return VespaAnswer(reading.checked(response), self.clock() - start, sent)
            except VespaError as error:
                pause = self._policy.pause(error, sent, ask.deadline)
                if pause is None:
                    raise
            self._sleep(pause)

    @property
    def _threads(self) -> ThreadPoolExecutor:
        with self._making:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._policy.settings.connections, thread_name_prefix="vespa")
            return self._pool

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        for transport in self._connections.transports():
            transport.close()


class AsyncExchange:
    """Sends requests from event loops, each with its own connections; a program may run several loops one after another."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.clock = clock
        self._policy = _Policy(settings, clock)
        self._sleep = sleep
        self._given = transport
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections[httpx.AsyncBaseTransport]] = (
            WeakKeyDictionary()
        )
        self._making = threading.Lock()

    @property
    def _connections(self) -> _Connections[httpx.AsyncBaseTransport]:
        loop = asyncio.get_running_loop()
        with self._making:  # loops of other threads
            if loop not in self._of_loops:
                self._of_loops[loop] = _Connections(self._policy, self._given, httpx.AsyncHTTPTransport)
            return self._of_loops[loop]

    async def ask(self, asks: Sequence[Ask]) -> list[VespaAnswer]:
        """Send all requests at once, like `Exchange.ask`; cancellation is passed on."""
        tasks = [asyncio.ensure_future(self._hedged(ask)) for ask in asks]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _hedged(self, ask: Ask) -> VespaAnswer:
        after = self._policy.settings.hedge_after
        if after is None:
            return await self._ask(ask)
        pair = {asyncio.ensure_future(self._ask(ask))}
        try:
            done, _ = await asyncio.wait(pair, timeout=after)
            if not done:
                pair.add(asyncio.ensure_future(self._ask(ask)))
            pending = set(pair)
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                good = [task for task in done if task.exception() is None]
                if good or not pending:
                    return (good or list(done))[0].result()
        finally:
            for task in pair:
                task.cancel()

    async def _ask(self, ask: Ask) -> VespaAnswer:
        start = self.clock()
        connection, sent = self._connections.to(ask), 0
        while True:
            sent += 1
            try:
                content, patience = self._policy.content(ask)
                with mapped_errors(ask.url, kind_of(ask)):
                    request = connection.request(ask, content, patience)
                    response = await connection.transport.handle_async_request(request)
                    response.request, reading = request, _Reading(ask, self.clock, patience)
                    try:
                        async for block in response.aiter_bytes():
                            reading.add(block)
                            if reading.ended:
                                break
                    finally:
                        await response.aclose()
                return VespaAnswer(reading.checked(response), self.clock() - start, sent)
            except VespaError as error:
                pause = self._policy.pause(error, sent, ask.deadline)
                if pause is None:
                    raise
            await self._sleep(pause)

    async def close(self) -> None:
        """Close the connections of this event loop; a later query opens new ones."""
        await self._end(asyncio.get_running_loop())

    def close_all(self) -> None:
        """Close the connections of all event loops; of a running one as soon as it can."""
        with self._making:
            loops = list(self._of_loops)
        for loop in loops:
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(self._end(loop), loop)
            elif not loop.is_closed():
                loop.run_until_complete(self._end(loop))

    async def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._making:
            connections = self._of_loops.pop(loop, None)
        for transport in () if connections is None else connections.transports():
            await transport.aclose()
