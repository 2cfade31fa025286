"""How often, and after how long, what failed in passing is sent again."""

from __future__ import annotations

import random

__all__ = ["MAX_ATTEMPTS", "jittered", "pause"]

MAX_ATTEMPTS = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0


def pause(count: int, first: float = FIRST_PAUSE_S, longest: float = LONGEST_PAUSE_S) -> float:
    """Seconds before something is sent again for the `count`-th time."""
    return float(min(longest, first * 2 ** min(max(count - 1, 0), 20)))


def jittered(seconds: float, chance: random.Random) -> float:
    """Give or take a quarter, so that what failed together does not come back together."""
    return seconds * chance.uniform(0.75, 1.25)
