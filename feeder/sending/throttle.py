"""How many operations may be in flight: the level with the best throughput for its latency, and fewer after a 429.

The throughput of each level of concurrency is remembered in 128 steps from `least` to 256 times that, each 4.4 % above the
one before. From time to time the level moves: near the one with the best throughput * level^-0.3, drawn slightly upwards so
that more is tried, or a step beyond if the best is the highest tried. A 429 halves a second limit, which each success
raises by a tenth of an operation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

__all__ = ["LEAST", "Throttle"]

LEAST = 16  # operations in flight
STEPS, RANGE = 128, 256
THROUGHPUT_WEIGHT = 0.7  # the remaining weight is latency's


class Throttle:
    """A throttle. clock: seconds. least, most: bounds of the level; equal for a fixed one."""

    def __init__(
        self, clock: Callable[[], float], *, least: int = LEAST, most: int = 1024, chance: random.Random | None = None
    ) -> None:
        self._clock, self._chance = clock, chance or random.Random()
        self.least, self.most = least, most
        self._level = float(least)
        self._granted = float(most)
        self._throughputs = [0.0] * STEPS
        self._sent = self._ok = 0
        self._since = clock()

    @property
    def allowed(self) -> int:
        """Return how many operations may be in flight."""
        return max(1, int(min(self._level, self._granted, self.most)))

    def succeeded(self) -> None:
        """Note a success."""
        self._granted = min(self._granted + 0.1, self.most)
        self._ok += 1

    def refused(self, in_flight: int) -> None:
        """Note that Vespa answered 429 while so many were in flight."""
        self._granted = max(in_flight / 2, self.least)

    def sent(self) -> None:
        """Note that an operation was sent."""
        self._sent += 1
        if self._sent**3 < 1000 * self.allowed**2:
            return
        now = self._clock()
        if (seconds := now - self._since) > 0:
            self._throughputs[self._step(self.allowed)] = self._ok / seconds
            if any(self._throughputs):
                self._level = min(max(self._next_level(), self.least), self.most)
        self._sent = self._ok = 0
        self._since = now

    def _step(self, level: float) -> int:
        return min(int(STEPS * math.log(max(1, level / self.least), RANGE)), STEPS - 1)

    def _centre(self, step: float) -> float:
        return float(self.least * RANGE ** ((step + 0.5) / STEPS))

    def _next_level(self) -> float:
        known = [step for step, found in enumerate(self._throughputs) if found]
        best = max(known, key=lambda step: self._throughputs[step] * self._centre(step) ** (THROUGHPUT_WEIGHT - 1))
        highest = known[-1]
        self._smooth(known)
        if best == highest < STEPS - 1:
            return self._centre(best + 1) + 1
        return self._centre(best) * self._chance.uniform(0.84, 1.24) + self._chance.uniform(-1, 3)

    def _smooth(self, known: list[int]) -> None:
        """Move each measurement a tenth towards its neighbours, so that one lucky moment does not fix the level."""
        was = [self._throughputs[step] for step in known]
        for place in range(1, len(known) - 1):
            self._throughputs[known[place]] = (was[place - 1] + 18 * was[place] + was[place + 1]) / 20
