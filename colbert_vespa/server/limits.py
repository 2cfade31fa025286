"""How much is taken on at once, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from colbert_vespa.server.errors import Refusal

__all__ = ["Gate", "within"]

T = TypeVar("T")
GRACE_S = 0.3  # what Vespa's own answer to a deadline may take to come, which says more than ours


class Gate:
    """Lets `running` requests in, keeps `waiting` behind them in order, and refuses the rest."""

    def __init__(self, running: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(running)
        self._most = waiting
        self.running = self.waiting = 0

    @asynccontextmanager
    async def entered(self, left: float) -> AsyncIterator[None]:
        """left: seconds that may be waited. Raises: Refusal where the queue is full, or the time is up."""
        if self._places.locked() and self.waiting >= self._most:
            raise Refusal(429, "the server is busy: try again later", {"Retry-After": "1"})
        self.waiting += 1
        try:
            await within(left, self._places.acquire(), grace=0.0)
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()


async def within(left: float, work: Awaitable[T], *, grace: float = GRACE_S) -> T:
    """left: seconds until the request's deadline. Raises: Refusal where it passes."""
    try:
        return await asyncio.wait_for(work, left + grace)
    except asyncio.TimeoutError:
        raise Refusal(504, "the time for the request was up: raise timeout, or ask for less") from None
