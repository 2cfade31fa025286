"""Work that continues after the response, whose progress can be queried."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from colbert_vespa.server.access import ADMIN, Access
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.guard import LOG
from colbert_vespa.server.writing import Fate

__all__ = ["Tasks"]

KEPT = 1_000  # tasks that are over
MOST_RUNNING = 64
MOST_FAILED = 100  # outcomes of a task that are told


@dataclass
class _Progress:
    """Progress of a task; `state` is running, done, or failed with the reason in `detail`."""

    owner: str
    documents: int
    state: str = "running"
    stored: int = 0
    failed: list[Fate] = field(default_factory=list)
    more_failed: int = 0
    detail: str = ""

    def note(self, fate: Fate) -> None:
        if fate.status < 400:
            self.stored += 1
        elif len(self.failed) < MOST_FAILED:
            self.failed.append(fate)
        else:
            self.more_failed += 1


class Tasks:
    """The tasks of this process. They end with it; documents that they have stored remain."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, _Progress] = OrderedDict()
        self._running: set[asyncio.Task[None]] = set()

    def start(self, access: Access, documents: int, work: Callable[[Callable[[Fate], None]], Awaitable[str]]) -> str:
        """Start a task and return its id.

        Args:
            access: The caller. Only the caller's key and administrators may see the task.
            documents: Number of documents of the task.
            work: Notes each outcome with the given function. Returns why it stopped early, or ''.

        Raises:
            Refusal: If too many tasks are running.
        """
        if len(self._running) >= MOST_RUNNING:
            raise Refusal(429, "too many tasks are running; try again later", {"Retry-After": "5"})
        id_, progress = uuid.uuid4().hex, _Progress(access.key, documents)
        self._tasks[id_] = progress
        for old in [name for name, task in self._tasks.items() if task.state != "running"][:-KEPT]:
            del self._tasks[old]

        async def run() -> None:
            try:
                progress.detail = await work(progress.note)
            except asyncio.CancelledError:
                progress.detail = "the server stopped"
                raise
            except Exception as error:  # noqa: BLE001  nobody awaits a task
                progress.detail = "the server has a fault; its log has the reason"
                LOG.error("fault", extra={"task": id_, "error": type(error).__name__})
            finally:
                progress.state = "failed" if progress.detail else "done"

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return id_

    def told(self, access: Access, id_: str) -> dict[str, Any]:
        """Return the state of a task.

        Raises:
            Refusal: If the task does not exist, or belongs to another key.
        """
        task = self._tasks.get(id_)
        if task is None or not (task.owner == access.key or access.may(ADMIN)):
            raise Refusal(404, f"there is no task {id_[:100]!r}")
        found: dict[str, Any] = {"task": id_, "state": task.state, "documents": task.documents, "stored": task.stored}
        found |= {"failed": [fate.to_json() for fate in task.failed], "more_failed": task.more_failed}
        return found | ({"detail": task.detail} if task.detail else {})

    async def finish(self, seconds: float | None = None) -> None:
        """Wait for running tasks for at most so many seconds, then cancel them; documents stored by then stay."""
        if self._running:
            _, late = await asyncio.wait(list(self._running), timeout=seconds)
            for task in late:
                task.cancel()
