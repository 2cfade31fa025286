"""Merge the answers of several shards."""

from __future__ import annotations

from collections.abc import Sequence

from late_interaction.plaid.types import LocalResult, ShardCoverage

__all__ = ["merged"]


def merged(results: Sequence[LocalResult], k: int, coverage: ShardCoverage, seconds: float) -> LocalResult:
    """Return the k best hits of `results`, which are in the order of the shards; equal scores stay in that order.

    The seconds of a stage are those of the slowest shard.
    """
    hits = sorted((hit for result in results for hit in result.hits), key=lambda hit: -hit.score)[:k]
    stages = {stage: max(result.seconds.get(stage, 0.0) for result in results) for r in results for stage in r.seconds}
    return LocalResult(
        hits=hits,
        candidates=sum(result.candidates for result in results),
        reranked=sum(result.reranked for result in results),
        widened=any(result.widened for result in results),
        outgrown=any(result.outgrown for result in results),
        seconds={**stages, "shards": max(0.0, seconds - max((sum(r.seconds.values()) for r in results), default=0.0))},
        coverage=coverage.share,
        missing=coverage.missing,
    )
