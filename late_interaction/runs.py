"""Split items of different sizes into runs that fit into memory together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from late_interaction.array_types import I64

__all__ = ["runs"]


def runs(sizes: I64 | Sequence[int], most: int) -> Iterator[slice]:
    """Yield slices of neighbouring items, at least one each, whose `sizes [n]` otherwise add up to at most `most`."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, "right")))
        yield slice(first, last)
        first = last
