"""Limits on concurrent requests and their time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from colbert_vespa.server.errors import Refusal

__all__ = ["LATE", "Gate", "within"]

T = TypeVar("T")
LATE = "the request timed out; raise timeout, or request less"
GRACE_S = 0.3  # what Vespa's own answer to a deadline may take to come, which says more than ours


class Gate:
    """Admits `running` requests at once, queues up to `waiting` in order, and rejects the others."""

    def __init__(self, running: int, waiting: int) -> None:
        self._places, self._most = running, waiting
        self._queue: deque[asyncio.Future[None]] = deque()
        self.running = 0

    @property
    def waiting(self) -> int:
        """Return the number of requests that wait."""
        return len(self._queue)

    @asynccontextmanager
    async def entered(self, left: float) -> AsyncIterator[None]:
        """Wait for a place, and hold it while the context is open.

        Args:
            left: Seconds to wait, at most.

        Raises:
            Refusal: If the queue is full, or the time is up.
        """
        if self.running < self._places:
            self.running += 1
        else:
            await self._turn(left)
        try:
            yield
        finally:
            self._leave()

    async def _turn(self, left: float) -> None:
        if len(self._queue) >= self._most:
            raise Refusal(429, "the server is busy; try again later", {"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.append(turn)
        timer = loop.call_later(max(0.0, left), self._late, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave()  # its turn came as it was cancelled
            raise
        finally:
            timer.cancel()
            if turn in self._queue:
                self._queue.remove(turn)

    def _leave(self) -> None:
        """Pass the slot to the request that has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1

    @staticmethod
    def _late(turn: asyncio.Future[None]) -> None:
        if not turn.done():
            turn.set_exception(Refusal(504, LATE))


async def within(left: float, work: Awaitable[T], late: str = LATE) -> T:
    """Return the result of `work`.

    Args:
        left: Seconds until the deadline of the request.
        work: The work to wait for.
        late: Message if the deadline passes.

    Raises:
        Refusal: If the deadline passes.
    """
    try:
        return await asyncio.wait_for(work, left + GRACE_S)
    except asyncio.TimeoutError:
        raise Refusal(504, late) from None
