"""Measure how much of one ranking is in another."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["overlap_at_k"]


def overlap_at_k(ranking: Sequence[str], reference: Sequence[str], k: int) -> float:
    """Return the share of the reference's first k that are among the ranking's first k: recall against exact search.

    Args:
        ranking: ids, best first.
        reference: ids of the exact ranking, best first.
        k: how many of each to compare.
    """
    wanted = set(reference[:k])
    return len(wanted.intersection(ranking[:k])) / len(wanted) if wanted else 1.0
