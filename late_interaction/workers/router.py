"""Send requests to several workers, each at its own place, and wait for their answers until a deadline.

A worker has one request at a time. A late one gets no request before it has sent the answer it owes; that answer is read
and dropped, as its number is not the current one.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from late_interaction.errors import ColbertVespaError, UsageError
from late_interaction.workers.frames import BLOCK, HELLO, Frame, pack, take_frame

__all__ = ["Router", "Wait", "Worker", "WorkerAnswers"]

Ready: TypeAlias = list[tuple[selectors.SelectorKey, int]]
Wait: TypeAlias = Callable[[selectors.BaseSelector, float], Ready]


class Worker(Protocol):
    """A worker process, or a substitute in tests."""

    socket: socket.socket

    @property
    def pid(self) -> int:
        """Return the id of the process."""

    def ended(self) -> bool:
        """Tell whether the process has ended."""

    def stop(self) -> str:
        """Stop the process and return how it ended."""


@dataclass
class _WorkerLine:
    """A worker and its open request: `owes`, the number of the request without an answer, sent at `since`."""

    worker: Worker
    since: float
    owes: int | None = HELLO
    outgoing: memoryview = field(default_factory=lambda: memoryview(b""))
    incoming: bytearray = field(default_factory=bytearray)


WorkerRequest: TypeAlias = tuple[dict[str, Any], bytes]


@dataclass(frozen=True)
class WorkerAnswers:
    """The answers of workers.

    Attributes:
        bodies: answer by place.
        silent: for each other place, why there is no answer.
        gone: whether one of the errors says that the requested version is gone.
    """

    bodies: Mapping[int, dict[str, Any]]
    silent: Mapping[int, str]
    gone: bool


class Router:
    """Sends requests to workers, those of several threads one after the other.

    Args:
        launch: starts the worker of a place.
        start: seconds for starting, and for which an answer may be owed.
        wait: waits until a socket is ready, or so many seconds.
    """

    def __init__(
        self,
        launch: Callable[[int], Worker],
        *,
        start: float,
        clock: Callable[[], float] = time.monotonic,
        wait: Wait = lambda selector, seconds: selector.select(seconds),
    ) -> None:
        self._launch = launch
        self.start = start
        self.now = clock
        self.wait = wait
        self._lines: dict[int, _WorkerLine] = {}
        self._number = HELLO
        self._lock = threading.Lock()
        self._stop = weakref.finalize(self, _stop_all, self._lines)  # also at the end of the process

    def close(self) -> None:
        """Stop all workers."""
        with self._lock:
            self._stop()

    def ask(self, requests: Mapping[int, WorkerRequest], timeout: float) -> WorkerAnswers:
        """Send each place its request and wait `timeout` seconds, after its worker has started, for the answer.

        Raises:
            UsageError: if the router is closed.
        """
        with self._lock:
            if not self._stop.alive:
                raise UsageError("the index is closed")
            self._number += 1
            asking = _Asking(self, self._number, requests, timeout)
            asking.wait()
            return WorkerAnswers(asking.bodies, asking.silent, asking.gone)

    def line(self, place: int) -> _WorkerLine:
        """Return the worker of a place, restarted if it has ended or owes an answer for too long."""
        line = self._lines.get(place)
        overdue = line is not None and line.owes is not None and self.now() - line.since > self.start
        if line is not None and (overdue or line.worker.ended()):
            self.drop(place)
            line = None
        if line is None:
            line = self._lines[place] = _WorkerLine(self._launch(place), self.now())
        return line

    def drop(self, place: int) -> str:
        """Stop the worker of a place; return how it had ended."""
        return self._lines.pop(place).worker.stop()


class _Asking:
    """One request to each of several workers, from sending to the last answer or deadline."""

    def __init__(self, router: Router, number: int, requests: Mapping[int, WorkerRequest], timeout: float) -> None:
        self._router = router
        self._number = number
        self._timeout = timeout
        self._frames = {place: pack(number, body, rows) for place, (body, rows) in requests.items()}
        self._lines: dict[int, _WorkerLine] = {}
        self._deadlines: dict[int, float] = {}
        self.bodies: dict[int, dict[str, Any]] = {}
        self.silent: dict[int, str] = {}
        self.gone = False
        for place in requests:
            try:
                line = router.line(place)
            except ColbertVespaError as error:
                self.silent[place] = str(error)
                continue
            self._lines[place] = line
            self._deadlines[place] = router.now() + (router.start if line.owes == HELLO else timeout)
            if line.owes is None:
                with self._losing(place):
                    self._send(place, line)

    def wait(self) -> None:
        while self._deadlines:
            now = self._router.now()
            for place in [place for place, deadline in self._deadlines.items() if deadline <= now]:
                starting = self._lines[place].owes == HELLO
                seconds = self._router.start if starting else self._timeout
                self._give_up(place, f"did not answer within {seconds:g} s")
            if self._deadlines:
                self._exchange(min(self._deadlines.values()) - now)

    def _exchange(self, seconds: float) -> None:
        """Read and write what is possible within `seconds`."""
        with selectors.DefaultSelector() as selector:
            for place in self._deadlines:
                line = self._lines[place]
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.outgoing else 0)
                selector.register(line.worker.socket, events, place)
            for key, events in self._router.wait(selector, seconds):
                self._serve(key.data, events)

    def _serve(self, place: int, events: int) -> None:
        line = self._lines[place]
        with self._losing(place):
            if events & selectors.EVENT_WRITE:
                _write(line)
            if events & selectors.EVENT_READ:
                data = line.worker.socket.recv(BLOCK)
                if not data:
                    raise ConnectionError
                line.incoming += data
                while (frame := take_frame(line.incoming)) is not None:
                    self._take(place, line, frame)

    @contextlib.contextmanager
    def _losing(self, place: int) -> Iterator[None]:
        """Give up a worker that has ended, or breaks the protocol."""
        try:
            yield
        except (OSError, ValueError):
            self._give_up(place, f"its process ended ({self._router.drop(place)})")

    def _take(self, place: int, line: _WorkerLine, frame: Frame) -> None:
        if frame.number != line.owes:
            raise ValueError(f"answer {frame.number} to request {line.owes}")
        line.owes = None
        if frame.number != self._number:
            if frame.number == HELLO:
                self._deadlines[place] = self._router.now() + self._timeout
            self._send(place, line)
        elif "error" in frame.body:
            self._give_up(place, str(frame.body["error"]))
            self.gone |= frame.body.get("gone", False) is True
        else:
            self.bodies[place] = frame.body
            del self._deadlines[place]

    def _send(self, place: int, line: _WorkerLine) -> None:
        line.owes, line.since, line.outgoing = self._number, self._router.now(), memoryview(self._frames[place])
        _write(line)

    def _give_up(self, place: int, why: str) -> None:
        self.silent[place] = why
        self._deadlines.pop(place, None)


def _write(line: _WorkerLine) -> None:
    """Write as much as the socket takes now."""
    with contextlib.suppress(BlockingIOError):
        while line.outgoing:
            line.outgoing = line.outgoing[line.worker.socket.send(line.outgoing) :]


def _stop_all(lines: dict[int, _WorkerLine]) -> None:
    while lines:
        with contextlib.suppress(OSError):
            lines.popitem()[1].worker.stop()
