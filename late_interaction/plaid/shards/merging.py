"""One answer of the answers of several shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from late_interaction.plaid.types import LocalResult

__all__ = ["Coverage", "merged"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """share: of the passages of all shards, how many the shards that answered have. missing: why the others did not."""

    share: float
    missing: tuple[str, ...]

    @classmethod
    def of(cls, sizes: Sequence[int | None], silent: Mapping[int, str]) -> Coverage:
        """sizes: passages by shard; one that was never read counts as the mean of the others."""
        known = [size for size in sizes if size is not None]
        mean = sum(known) / len(known) if known else 0.0
        filled = [mean if size is None else size for size in sizes]
        lost = sum(filled[shard] for shard in silent)
        share = max(0.0, 1.0 - lost / sum(filled)) if lost else 1.0
        return cls(share, tuple(f"shard-{shard}: {why}" for shard, why in sorted(silent.items())))


def merged(results: Sequence[LocalResult], k: int, coverage: Coverage, seconds: float) -> LocalResult:
    """The k best hits of `results`, which are in the order of the shards; equal scores stay in that order.

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
