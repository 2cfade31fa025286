"""The circuit breaker: wait through an outage, then give up.

closed      operations are sent
half-open   nothing has succeeded for `grace` seconds: one operation at a time tests whether Vespa is back
open        nothing has succeeded for `doom` seconds: the feed ends, and can be resumed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

__all__ = ["Breaker", "Circuit"]

GRACE_S, DOOM_S = 10.0, 120.0

Circuit = Literal["closed", "half-open", "open"]


class Breaker:
    """A circuit breaker. clock: seconds."""

    def __init__(self, clock: Callable[[], float], *, grace: float = GRACE_S, doom: float = DOOM_S) -> None:
        self._clock = clock
        self.grace, self.doom = grace, doom
        self._failing_since: float | None = None
        self._open = False

    def succeeded(self) -> None:
        """Note a success."""
        self._failing_since = None

    def failed(self) -> None:
        """Note a failure."""
        if self._failing_since is None:
            self._failing_since = self._clock()

    def trip(self) -> None:
        """Open at once: retries cannot help."""
        self._open = True

    @property
    def failing_for(self) -> float:
        """Return seconds since the first failure after the last success; 0 if there is none."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since

    @property
    def state(self) -> Circuit:
        """Return the state."""
        if self._open or self.failing_for > self.doom:
            self._open = True  # permanent: a feed that gave up does not start again
            return "open"
        return "half-open" if self.failing_for > self.grace else "closed"
