"""Merge the answers of several indexes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from late_interaction.errors import UsageError
from query.backend import SearchIndex
from query.grouping import best_passages
from query.options import SearchOptions
from query.types import SearchResult

__all__ = ["check_comparable", "merged"]

FUSED = "hybrid"  # its scores come from ranks, not from MaxSim


def check_comparable(indexes: Sequence[SearchIndex]) -> None:
    """Check that the indexes have the same bundle.

    Raises:
        UsageError: if they differ: scores of two models cannot be compared.
    """
    if not all(indexes[0].bundle.comparable(index.bundle) for index in indexes):
        raise UsageError("the indexes have different bundles, so their scores cannot be compared; search each one separately")


def merged(results: Sequence[SearchResult], options: SearchOptions) -> SearchResult:
    """Return the page of all hits, best first; equal scores in the order of the indexes, then in each index's order.

    Raises:
        UsageError: if only some results have MaxSim as scores.
    """
    kinds = {result.candidates for result in results}
    if FUSED in kinds and len(kinds) > 1:
        raise UsageError(
            f"the indexes would be searched by {' and '.join(sorted(kinds))}, whose scores cannot be compared; "
            f"choose candidates"
        )
    hits = sorted((hit for result in results for hit in result.hits), key=lambda hit: -hit.score)
    if options.group:
        hits = list(best_passages(hits, len(hits)))
    page = hits[options.first : options.last]
    matched = [result.matched for result in results if result.matched is not None]
    searched = [result.searched for result in results if result.searched is not None]
    timings: dict[str, float] = {}
    for result in results:
        for stage, took in result.timings_ms.items():
            timings[stage] = max(took, timings.get(stage, 0.0))  # they ran concurrently
    return SearchResult(
        hits=tuple(replace(hit, rank=rank) for rank, hit in enumerate(page, start=options.first + 1)),
        candidates=", ".join(dict.fromkeys(result.candidates for result in results)),
        matched=sum(matched) if matched else None,
        reranked=sum(result.reranked for result in results),
        stage=results[0].stage,
        chosen="; ".join(dict.fromkeys(result.chosen for result in results if result.chosen)),
        coverage=min(result.coverage for result in results),
        searched=sum(searched) if searched else None,
        degraded=tuple(dict.fromkeys(why for result in results for why in result.degraded)),
        timings_ms=timings,
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )
