"""Decide which operation is sent next, and interpret its answer.

Time and chance are parameters; nothing here reads, writes or waits. A job is the work for one document: stages of
operations, each started when the one before is acknowledged. Jobs of one document run in the order in which they were
added; those of different documents run together. 429 is retried without a cap. 502, 503, 504, 507 and transport errors are
retried ten times while others succeed, and otherwise for as long as the breaker allows. Any other failure settles the job.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from feeder.outcomes import Failure
from feeder.sending.breaker import Breaker
from feeder.sending.jobs import Attempt, Job
from feeder.sending.retrying import MAX_ATTEMPTS, jittered, pause
from feeder.sending.statistics import Counts, FeedStatistics
from feeder.sending.throttle import Throttle
from feeder.sending.verdicts import HttpAnswer, Verdict, judge
from late_interaction.errors import VespaBusy, VespaError, VespaRefused, VespaUnreachable

__all__ = ["Dispatcher"]

FIRST_429_PAUSE_S, LONGEST_429_PAUSE_S = 0.05, 2.0
PROBE_S = 1.0  # seconds between two operations that test whether Vespa is back


@dataclass(eq=False)
class Dispatcher:
    """Decides what is sent.

    `error` is set when retries are used up; nothing is sent then. name: of the address, for messages. clock: seconds.
    """

    name: str
    clock: Callable[[], float]
    throttle: Throttle
    breaker: Breaker
    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.error: VespaError | None = None
        self._last: VespaError | None = None  # attempts of an operation after transient failures
        self.in_flight = 0
        self.counts = Counts()
        self._settled: list[Job] = []
        self._queues: dict[str, deque[Job] | None] = {}  # jobs that wait for the running job of their document
        self._ready: deque[Attempt] = deque()
        self._waiting: list[tuple[float, int, Attempt]] = []  # a heap by the time of the next attempt
        self._numbers = itertools.count()
        self._probe: Attempt | None = None
        self._next_probe = 0.0

    def add(self, job: Job) -> None:
        """Add a job."""
        if job.key not in self._queues:
            self._queues[job.key] = None
            self._advance(job)
            return
        queue = self._queues[job.key]
        if queue is None:
            queue = self._queues[job.key] = deque()
        queue.append(job)

    def take(self) -> Attempt | None:
        """Return the next operation to send now; None if none may be sent."""
        state = self.breaker.state
        if state == "open":
            assert self._last is not None  # only failures open the breaker
            self._give_up(self._last)
            return None
        now = self.clock()
        if self.error is not None or not (self._may_probe(now) if state == "half-open" else self._has_room()):
            return None
        attempt = self._next(now)
        if attempt is None:
            return None
        if state == "half-open":
            self._probe, self._next_probe = attempt, now + PROBE_S
        self.in_flight += 1
        self.counts.bytes_sent += len(attempt.operation.body)
        self.throttle.sent()
        return attempt

    def wake_at(self) -> float | None:
        """Return when `take` may have something, if no answer comes first; None if only an answer or a job can change that."""
        if self.error is not None or not (self._ready or self._waiting):
            return None
        due = self.clock() if self._ready else self._waiting[0][0]
        if self.breaker.state == "half-open":
            return max(due, self._next_probe) if self._probe is None else None
        return due if self._has_room() else None

    def answered(self, attempt: Attempt, answer: HttpAnswer) -> None:
        """Process the answer to an operation."""
        state = self.breaker.state
        self.in_flight -= 1
        if self._probe is attempt:
            self._probe = None
        self.counts.answered(answer.seconds)
        verdict, message = judge(attempt.operation, answer)
        if verdict in (Verdict.FAILED, Verdict.HOPELESS):
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        if verdict is Verdict.DONE:
            self.throttle.succeeded()
            self._finished(attempt, verdict)
        elif verdict is Verdict.REFUSED:
            attempt.job.failure = attempt.job.failure or Failure(attempt.job.key, answer.status, f"{self.name} {message}")
            self._finished(attempt, verdict)
        elif verdict is Verdict.THROTTLED:
            self.throttle.refused(self.in_flight + 1)
            attempt.refusals += 1
            self._again(attempt, "429", pause(attempt.refusals, FIRST_429_PAUSE_S, LONGEST_429_PAUSE_S))
        else:
            self._failed(attempt, answer, f"{self.name} {message}", verdict, counts=state == "closed")

    def settled(self) -> list[Job]:
        """Return jobs that have ended since the last call."""
        found, self._settled = self._settled, []
        return found

    def statistics(self) -> FeedStatistics:
        """Return the statistics so far."""
        counts = self.counts
        return FeedStatistics(
            in_flight=self.in_flight,
            allowed=self.throttle.allowed,
            waiting=len(self._ready) + len(self._waiting),
            circuit=self.breaker.state,
            operations=counts.operations(),
            retries=dict(sorted(counts.retries.items())),
            bytes_sent=counts.bytes_sent,
            latency_ms=counts.latency_ms(),
            latency_counts=tuple(counts.latency_counts),
            latency_seconds=counts.latency_seconds,
        )

    def _has_room(self) -> bool:
        return self.in_flight < self.throttle.allowed

    def _may_probe(self, now: float) -> bool:
        return self._probe is None and now >= self._next_probe

    def _next(self, now: float) -> Attempt | None:
        """Return the next operation, retries first. A failed job sends nothing more."""
        while True:
            if self._waiting and self._waiting[0][0] <= now:
                attempt = heapq.heappop(self._waiting)[2]
            elif self._ready:
                attempt = self._ready.popleft()
            else:
                return None
            if attempt.job.failure is None:
                return attempt
            self._closed(attempt.job)

    def _failed(self, attempt: Attempt, answer: HttpAnswer, message: str, verdict: Verdict, *, counts: bool) -> None:
        """Note a failure. counts: while no operation succeeds, the breaker decides when to give up."""
        attempt.failures += 1 if counts else 0
        said = answer.status >= 400
        kind = VespaRefused if said and verdict is Verdict.HOPELESS else VespaBusy if said else VespaUnreachable
        error = self._last = kind(message, answer.status)
        if verdict is Verdict.HOPELESS:
            self.breaker.trip()
            self._give_up(error)
        elif attempt.failures >= MAX_ATTEMPTS or self.breaker.state == "open":
            self._give_up(error)
        reason = str(answer.status) if said else "transport"
        self._again(attempt, reason, pause(attempt.failures))

    def _again(self, attempt: Attempt, reason: str, seconds: float) -> None:
        self.counts.retries[reason] += 1
        due = self.clock() + jittered(seconds, self.chance)
        heapq.heappush(self._waiting, (due, next(self._numbers), attempt))

    def _finished(self, attempt: Attempt, verdict: Verdict) -> None:
        self.counts.finished[attempt.operation.kind, verdict.value] += 1
        self._closed(attempt.job)

    def _closed(self, job: Job) -> None:
        """Note that an operation of the job has ended."""
        job._open -= 1
        if not job._open:
            self._advance(job)

    def _advance(self, job: Job) -> None:
        """Start the job's next stage that has operations, or settle it and start the document's next job."""
        while job.failure is None and job._stage < len(job.stages):
            stage = job.stages[job._stage]
            job._stage += 1
            if stage:
                job._open = len(stage)
                self._ready.extend(Attempt(job, operation) for operation in stage)
                return
        self._settled.append(job)
        queue = self._queues[job.key]
        if queue:
            self._advance(queue.popleft())
        else:
            del self._queues[job.key]

    def _give_up(self, error: VespaError) -> None:
        if self.error is None:
            known = str(error).rstrip(". ")
            self.error = type(error)(f"{known}; acknowledged documents are kept; feed again with --resume", error.status)
