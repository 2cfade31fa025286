"""Encode in worker processes, each with a thread here, so that a slow target never keeps an encoder waiting.

A worker that dies (out of memory, killed) is replaced and gets its batches again. If that happens twice to one batch, the
feed stops, and can be resumed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, Queue

from feeder.encoding.batches import EncodedPassages, Text
from feeder.encoding.passages import Splitting
from feeder.encoding.worker import answer_of, batch_body
from late_interaction.bundle import Bundle
from late_interaction.devices import CPU, Device
from late_interaction.errors import ColbertVespaError
from late_interaction.workers.frames import pack, read_frame
from late_interaction.workers.process import WorkerProcess

__all__ = ["WorkerEncoding"]

PIPELINED = 2  # batches per worker: one is encoded while the next waits
MODULE = "feeder.encoding.worker"


@dataclass(slots=True)
class _Task:
    batch: Sequence[Text]
    done: Future[list[EncodedPassages]] = field(default_factory=Future)
    deaths: int = 0


class WorkerEncoding:
    """`count` processes with one thread each. They end when this object is closed, or when this process ends."""

    def __init__(self, bundle: Bundle, precision: str, splitting: Splitting, count: int, device: Device = CPU) -> None:
        self.ahead = count * (PIPELINED + 1)
        self._dim = bundle.manifest.dim
        self._dense_dims = {name: part.dim for name, part in bundle.manifest.dense.items()}
        self._path = bundle.path
        self._settings = {
            "bundle": str(bundle.path.absolute()), "precision": precision, "threads": 1, "device": str(device),
            "splitting": [splitting.method, splitting.tokens, splitting.overlap],
        }  # fmt: skip
        self._tasks: Queue[_Task | None] = Queue()
        self._closed = False
        self._lock = threading.Lock()
        self._processes: dict[int, WorkerProcess] = {}
        self._threads = [threading.Thread(target=self._serve, args=(n,), name=f"encode-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, batch: Sequence[Text]) -> Future[list[EncodedPassages]]:
        """Start encoding a batch."""
        task = _Task(batch)
        self._tasks.put(task)
        return task.done

    def close(self) -> None:
        """Stop the workers."""
        with self._lock:
            self._closed = True
            for process in self._processes.values():
                process.stop()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, place: int) -> None:
        """Run one worker, and those that replace it."""
        waiting: deque[_Task] = deque()
        while not self._closed:
            try:
                self._converse(place, waiting)
            except (OSError, ValueError):
                self._died(place, waiting)
            except ColbertVespaError as error:
                self._died(place, waiting)
                self._fail(waiting, error)
                if (task := self._tasks.get()) is not None:
                    waiting.append(task)
            else:
                return

    def _converse(self, place: int, waiting: deque[_Task]) -> None:
        """Exchange batches and answers until there is nothing left.

        Raises:
            OSError: if the process ends.
            ValueError: if the process breaks the protocol.
            ColbertVespaError: if the process cannot start.
        """
        if not waiting and not self._take(waiting, block=True):
            return
        process = self._start(place)
        buffer = bytearray()
        process.socket.sendall(pack(0, dict(self._settings)))
        hello = read_frame(process.socket, buffer)
        if hello is None:
            raise OSError
        answer_of_start(hello.body)
        sent = 0
        while True:
            while sent < len(waiting) or (len(waiting) < PIPELINED and self._take(waiting, block=not waiting)):
                process.socket.sendall(pack(sent + 1, batch_body(waiting[sent].batch)))
                sent += 1
            if not waiting:
                return
            frame = read_frame(process.socket, buffer)
            if frame is None:
                raise OSError
            sent -= 1
            task = waiting.popleft()
            try:
                task.done.set_result(answer_of(frame, self._dim, self._dense_dims))
            except ColbertVespaError as error:
                task.done.set_exception(error)

    def _take(self, waiting: deque[_Task], *, block: bool) -> bool:
        """Take another batch if there is one. None stays in the queue for the other threads: each gets its own."""
        try:
            task = self._tasks.get(block=block)
        except Empty:
            return False
        if task is None:
            self._closed = True
            return False
        waiting.append(task)
        return True

    def _start(self, place: int) -> WorkerProcess:
        process = WorkerProcess(self._path, 1, MODULE)
        process.socket.setblocking(True)
        with self._lock:
            self._processes[place] = process
            if self._closed:
                process.stop()
        return process

    def _died(self, place: int, waiting: deque[_Task]) -> None:
        with self._lock:
            process = self._processes.pop(place, None)
            how = "" if process is None or self._closed else process.stop()
        if self._closed:
            self._fail(waiting, ColbertVespaError("encoding was stopped"))
            return
        if waiting:
            waiting[0].deaths += 1
            if waiting[0].deaths > 1:
                reason = f"an encoding process ended twice on the same documents ({how}); use fewer --workers"
                waiting.popleft().done.set_exception(ColbertVespaError(reason))

    @staticmethod
    def _fail(waiting: deque[_Task], error: ColbertVespaError) -> None:
        while waiting:
            waiting.popleft().done.set_exception(error)


def answer_of_start(body: dict[str, object]) -> None:
    """Raise ColbertVespaError if the worker reports that it cannot start."""
    if "error" in body:
        raise ColbertVespaError(str(body["error"]))
