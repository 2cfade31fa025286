"""How much of one ranking is in another."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["overlap_at_k"]


def overlap_at_k(ranking: Sequence[str], reference: Sequence[str], k: int) -> float:
    """Share of the reference's first k that are among the ranking's first k: recall against exact search."""
    wanted = set(reference[:k])
    return len(wanted.intersection(ranking[:k])) / len(wanted) if wanted else 1.0
