"""Batch work that arrives while other work is in progress."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Gathering"]

T = TypeVar("T")
R = TypeVar("R")


class Gathering(Generic[T, R]):
    """Collect items that arrive while `work` is busy and pass them on together, at most `most` at once.

    An item that arrives while `work` is idle is passed on immediately, so a single item never waits for others. Items whose
    caller has gone are left out.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[Sequence[R]]], most: int) -> None:
        """Create a queue for `work`.

        Args:
            work: Returns one result for each item, in order. Its error is the error of all items of the call.
            most: Items of one call, at most.
        """
        self._work, self._most = work, most
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Return the number of items that wait."""
        return len(self._waiting)

    async def __call__(self, item: T) -> R:
        """Hand over an item and wait for its result."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while batch := self._next():
                await self._answer(batch)
        finally:
            self._task = None

    def _next(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._most:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    async def _answer(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001  whatever it is, it is the callers'
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
