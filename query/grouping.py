"""One hit per document: its best passage. Vespa's container groups by itself; this is for local indexes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from query.types import Hit, SearchResult
from vespa_app.settings.application_settings import MAX_HITS

__all__ = ["best_passages", "grouped"]

MORE = 4  # how many times more passages to request if they came from too few documents


def best_passages(hits: Sequence[Hit], k: int) -> tuple[Hit, ...]:
    """Return the first hit of each document, at most k of them, with new ranks."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.id, hit)
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(list(first.values())[:k], start=1))


def grouped(search: Callable[[int], SearchResult], k: int) -> SearchResult:
    """Return the k best documents by their best passages. search: returns the best n passages."""
    count = min(2 * k, MAX_HITS)
    while True:
        result = search(count)
        hits = best_passages(result.hits, k)
        if len(hits) == k or len(result.hits) < count or count == MAX_HITS:
            return replace(result, hits=hits)
        count = min(MORE * count, MAX_HITS)
