"""Statistics of sent operations, for progress and metrics."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from feeder.sending.breaker import Circuit

__all__ = ["LATENCY_BOUNDS_S", "Counts", "FeedStatistics", "added_statistics"]

PERCENTILES = (50, 95, 99)
WORST_LAST: tuple[Circuit, ...] = ("closed", "half-open", "open")
RECENT = 2048  # number of latest answers that percentiles are computed from
LATENCY_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class FeedStatistics:
    """Statistics of sent operations.

    Attributes:
        in_flight: operations sent and not answered.
        allowed: operations that the throttle allows in flight.
        waiting: operations waiting to be sent or retried.
        circuit: state of the circuit breaker.
        operations: kind (put, update, remove) -> outcome (ok, refused) -> number of finished operations.
        retries: reason (an HTTP status, or transport) -> number of retried operations.
        bytes_sent: bytes of bodies as sent, retries included.
        latency_ms: p50, p95 and p99 of the last 2,048 answers; empty before the first.
        latency_counts: of all answers, how many took no longer than each of LATENCY_BOUNDS_S and longer than the one
            before; the last counts those longer than all.
        latency_seconds: sum of all latencies.
    """

    in_flight: int
    allowed: int
    waiting: int
    circuit: Circuit
    operations: Mapping[str, Mapping[str, int]]
    retries: Mapping[str, int]
    bytes_sent: int
    latency_ms: Mapping[str, float]
    latency_counts: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_S) + 1)
    latency_seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """Return the statistics as JSON values."""
        return asdict(self)


def added_statistics(parts: Sequence[FeedStatistics]) -> FeedStatistics:
    """Combine the statistics of several senders. latency_ms are upper bounds, because the answers are not known."""
    operations: dict[str, Counter[str]] = {}
    retries: Counter[str] = Counter()
    for part in parts:
        retries.update(part.retries)
        for kind, outcomes in part.operations.items():
            operations.setdefault(kind, Counter()).update(outcomes)
    counts = tuple(map(sum, zip(*(part.latency_counts for part in parts), strict=True)))
    return FeedStatistics(
        in_flight=sum(part.in_flight for part in parts),
        allowed=sum(part.allowed for part in parts),
        waiting=sum(part.waiting for part in parts),
        circuit=max((part.circuit for part in parts), key=WORST_LAST.index),
        operations={kind: dict(outcomes) for kind, outcomes in sorted(operations.items())},
        retries=dict(sorted(retries.items())),
        bytes_sent=sum(part.bytes_sent for part in parts),
        latency_ms=_bounds_ms(counts),
        latency_counts=counts,
        latency_seconds=sum(part.latency_seconds for part in parts),
    )


def _bounds_ms(counts: Sequence[int]) -> dict[str, float]:
    answers, reached = sum(counts), tuple(itertools.accumulate(counts))
    if not answers:
        return {}
    places = {part: bisect_left(reached, answers * part / 100) for part in PERCENTILES}
    return {f"p{part}": 1000 * LATENCY_BOUNDS_S[min(place, len(LATENCY_BOUNDS_S) - 1)] for part, place in places.items()}


class Counts:
    """The running counts; one thread writes."""

    def __init__(self) -> None:
        self.finished: Counter[tuple[str, str]] = Counter()
        self.retries: Counter[str] = Counter()
        self.bytes_sent = 0
        self.latency_counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.latency_seconds = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)

    def answered(self, seconds: float) -> None:
        """Note an answer's latency."""
        self._recent.append(seconds)
        self.latency_counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.latency_seconds += seconds

    def operations(self) -> dict[str, dict[str, int]]:
        """Return the number of operations by kind and outcome."""
        found: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(self.finished.items()):
            found.setdefault(kind, {})[outcome] = count
        return found

    def latency_ms(self) -> dict[str, float]:
        """Return the percentiles."""
        ordered = sorted(self._recent)
        if not ordered:
            return {}
        return {f"p{part}": 1000 * ordered[min(len(ordered) * part // 100, len(ordered) - 1)] for part in PERCENTILES}
