"""Limit the rate of a caller's requests."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["TokenBucket"]


class TokenBucket:
    """A limit of `rate` requests per second; those of one second may arrive at once."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate, self._clock = rate, clock
        self._most = self._left = max(1.0, rate)
        self._at = clock()

    def taken(self) -> int:
        """Take a token and return 0, or return the whole seconds until one is available."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return max(1, math.ceil((1.0 - self._left) / self._rate))
        self._left -= 1.0
        return 0
