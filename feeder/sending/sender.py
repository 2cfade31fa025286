"""The thread that sends jobs and receives their answers.

`submit` and `settled` are called from outside; everything else happens in the thread. It is a daemon: a feed that ends with
an error does not wait for answers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from feeder.sending.breaker import Breaker
from feeder.sending.dispatcher import Dispatcher
from feeder.sending.jobs import Attempt, Job
from feeder.sending.statistics import FeedStatistics
from feeder.sending.throttle import LEAST, Throttle
from feeder.sending.verdicts import HttpAnswer
from vespa_app.running.http import parse_address

__all__ = ["Sender", "Transport", "open_sender"]

MOST_BYTES = 64 << 20  # bytes of bodies handed over and not settled
MOST_JOBS = 8192
LONGEST_WAIT_S = 1.0


class Transport(Protocol):
    """Where operations go. Only `wake` may be called from another thread."""

    def send(self, attempt: Attempt, allowed: int) -> None:
        """Send an operation. allowed: how many may be in flight now."""
        ...

    def poll(self, seconds: float) -> list[tuple[Attempt, HttpAnswer]]:
        """Return answers; wait at most `seconds` for the first one, or until `wake`."""
        ...

    def wake(self) -> None:
        """End a `poll` in progress."""

    def close(self) -> None:
        """Close the connections."""


def open_sender(
    url: str,
    *,
    timeout: float = 60.0,
    senders: int = 1,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] | None = None,
) -> Sender:
    """Open a sender to the query address `url`.

    Args:
        url: the address.
        timeout: seconds that one operation may take.
        senders: how many processes send there at once; while Vespa answers 429, each keeps its share in flight.
        clock: seconds; replaced in tests.
        sleep: waits; replaced in tests.

    Raises:
        UsageError: if the address or the credentials of the environment cannot be used.
    """
    from feeder.sending.transport import CONNECTIONS, STREAMS, CurlTransport

    transport = CurlTransport(parse_address(url), timeout=timeout)
    throttle = Throttle(clock, least=max(1, LEAST // senders), most=CONNECTIONS * STREAMS)
    return Sender(Dispatcher(url, clock, throttle, Breaker(clock)), transport, sleep=sleep)


class Sender:
    """Sends jobs in a thread. sleep: waits while nothing is in flight; by default a wait that a new job ends."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        transport: Transport,
        *,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._dispatcher, self._transport, self._sleep = dispatcher, transport, sleep
        self._changed = threading.Condition()
        self._inbox: deque[Job] = deque()
        self._outbox: list[Job] = []
        self._jobs = self._bytes = 0  # handed over and not settled
        self._fault: BaseException | None = None
        self._closing = self._over = False  # ended: nothing is sent any more, and all settled jobs are in the outbox
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Hand over a job; block while the sender is full.

        Raises:
            ColbertVespaError: the error that ended the sending.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._over or self._has_room())
            self._raise_if_over()
            self._inbox.append(job)
            self._jobs += 1
            self._bytes += job.size
        self._transport.wake()

    def settled(self, *, wait: bool = False) -> list[Job]:
        """Return jobs settled since the last call.

        Args:
            wait: wait until all are settled.

        Raises:
            ColbertVespaError: only with `wait`, the error that ended the sending before all were settled; the next call
                without `wait` returns what was settled.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._over or not self._jobs)
                if self._jobs:
                    self._raise_if_over()
            found, self._outbox = self._outbox, []
            return found

    def statistics(self) -> FeedStatistics:
        """Return the statistics so far."""
        return self._dispatcher.statistics()

    def close(self) -> None:
        """Stop without waiting for answers."""
        self._closing = True
        self._transport.wake()
        self._thread.join()
        self._transport.close()

    def _has_room(self) -> bool:
        return not self._jobs or (self._jobs < MOST_JOBS and self._bytes < MOST_BYTES)

    def _raise_if_over(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._dispatcher.error is not None:
            raise self._dispatcher.error

    def _run(self) -> None:
        try:
            while not self._closing and self._dispatcher.error is None:
                self._step()
        except BaseException as fault:  # noqa: BLE001 - handed to the caller's thread, which raises it
            self._fault = fault
        try:
            self._publish()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _step(self) -> None:
        dispatcher = self._dispatcher
        while self._inbox:
            dispatcher.add(self._inbox.popleft())
        while (attempt := dispatcher.take()) is not None:
            self._transport.send(attempt, dispatcher.throttle.allowed)
        self._publish()
        wake_at = dispatcher.wake_at()
        pause = LONGEST_WAIT_S if wake_at is None else max(0.0, wake_at - dispatcher.clock())
        if dispatcher.error is not None:
            pause = 0.0
        if self._sleep is not None and wake_at is not None and not dispatcher.in_flight:
            self._sleep(pause)
            pause = 0.0
        for attempt, answer in self._transport.poll(min(pause, LONGEST_WAIT_S)):
            dispatcher.answered(attempt, answer)
        self._publish()

    def _publish(self) -> None:
        settled = self._dispatcher.settled()
        if settled:
            with self._changed:
                self._outbox += settled
                self._jobs -= len(settled)
                self._bytes -= sum(job.size for job in settled)
                self._changed.notify_all()
