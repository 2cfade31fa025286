"""How often, and after how long, what failed in passing is sent again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from late_interaction.errors import VespaBusy, VespaUnreachable

__all__ = ["MAX_ATTEMPTS", "insistent", "jittered", "pause"]

Got = TypeVar("Got")
TOO_MANY_REQUESTS = 429  # is asked again without a cap

MAX_ATTEMPTS = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0


def pause(count: int, first: float = FIRST_PAUSE_S, longest: float = LONGEST_PAUSE_S) -> float:
    """Seconds before something is sent again for the `count`-th time."""
    return float(min(longest, first * 2 ** min(max(count - 1, 0), 20)))


def jittered(seconds: float, chance: random.Random) -> float:
    """Give or take a quarter, so that what failed together does not come back together."""
    return seconds * chance.uniform(0.75, 1.25)


def insistent(ask: Callable[[], Got], sleep: Callable[[float], None], chance: random.Random) -> Got:
    """What `ask` answers, asked again after what fails in passing. Raises: VespaUnreachable, VespaBusy after ten attempts."""
    attempt = 0
    while True:
        try:
            return ask()
        except (VespaBusy, VespaUnreachable) as error:
            attempt += 0 if error.status == TOO_MANY_REQUESTS else 1
            if attempt >= MAX_ATTEMPTS:
                raise
            sleep(jittered(pause(attempt), chance))
