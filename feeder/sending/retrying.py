"""How often, and after how long, transient failures are retried."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from late_interaction.errors import VespaBusy, VespaUnreachable

__all__ = ["MAX_ATTEMPTS", "insistent", "jittered", "pause"]

Got = TypeVar("Got")
TOO_MANY_REQUESTS = 429  # retried without a cap

MAX_ATTEMPTS = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0


def pause(count: int, first: float = FIRST_PAUSE_S, longest: float = LONGEST_PAUSE_S) -> float:
    """Return the seconds before the `count`-th retry."""
    return float(min(longest, first * 2 ** min(max(count - 1, 0), 20)))


def jittered(seconds: float, chance: random.Random) -> float:
    """Vary the seconds by up to a quarter, so that operations that failed together are not retried together."""
    return seconds * chance.uniform(0.75, 1.25)


def insistent(ask: Callable[[], Got], sleep: Callable[[float], None], chance: random.Random) -> Got:
    """Return what `ask` returns, retried after transient failures.

    Raises:
        VespaUnreachable: after ten attempts.
        VespaBusy: after ten attempts.
    """
    attempt = 0
    while True:
        try:
            return ask()
        except (VespaBusy, VespaUnreachable) as error:
            attempt += 0 if error.status == TOO_MANY_REQUESTS else 1
            if attempt >= MAX_ATTEMPTS:
                raise
            sleep(jittered(pause(attempt), chance))
