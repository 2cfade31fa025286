"""Inputs and outputs of searches and commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import numpy as np

from late_interaction.documents import Passage
from late_interaction.errors import UsageError

__all__ = [
    "ONE_VECTOR", "CommitSummary", "DenseForm", "LocalHit", "LocalResult", "LocalScores", "OneVectorForm", "SearchSettings",
    "ShardCoverage", "Storage",
]  # fmt: skip

ONE_VECTOR = "one-vector"  # no name of a dense model has a hyphen


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How much work a search does; None takes the default for the size of the index.

    Attributes:
        probes: centroids looked up for every query row.
        rerank: most passages whose decoded vectors are scored with MaxSim (at least k); fewer if no other can be among the
            best.
    """

    probes: int | None = None
    rerank: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: if one is below 1.
        """
        for name, least in (("probes", 1), ("rerank", 1)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise UsageError(f"search setting {name} must be a whole number of at least {least}, got {value!r}")
            object.__setattr__(self, name, int(value))  # not numpy's, which JSON cannot encode


@dataclass(frozen=True, slots=True)
class DenseForm:
    """The form of a dense model's vectors, one per passage.

    Attributes:
        dim: its dimensions.
        normalized: whether they have length one.
    """

    dim: Annotated[int, msgspec.Meta(ge=1)]
    normalized: bool = True


@dataclass(frozen=True, slots=True)
class OneVectorForm:
    """The one vector of each passage that candidates `pooled` search (late_interaction.one_vector).

    It is stored like those of a dense model named ONE_VECTOR.
    """

    encoding: str
    dim: Annotated[int, msgspec.Meta(ge=1)]
    normalized: bool


@dataclass(frozen=True, slots=True)
class Storage:
    """How a new index stores its vectors.

    Attributes:
        codec: residual, binary or float32.
        bits: bits per dimension of a residual; None for those of the bundle's codebook, else 4.
        refine: whether int8 rows are kept.
    """

    codec: str = "residual"
    bits: int | None = None
    refine: bool = False

    @classmethod
    def chosen(cls, codec: str | None, bits: int | None, refine: bool) -> Storage | None:
        """Return the storage of what a user has named; None if that is nothing."""
        return cls(codec or cls().codec, bits, refine) if codec or bits is not None or refine else None


@dataclass(frozen=True, slots=True)
class LocalHit:
    """A hit.

    Attributes:
        passage: the passage.
        score: MaxSim in float32 over stored vectors: the int8 rows if the index keeps them, else the decoded ones.
        approximate: the score from centroids alone, if that stage ran.
    """

    passage: Passage
    score: float
    approximate: float


@dataclass(frozen=True, slots=True)
class LocalResult:
    """The result of a search.

    Attributes:
        hits: best first; equal scores in order of insertion.
        candidates: number of passages that the first stage found.
        reranked: number of passages scored with MaxSim.
        widened: probing found fewer passages than are reranked (at least k), so more was searched.
        seconds: wall time by stage.
        outgrown: the index has more than twice the token vectors that it was tuned with, so the defaults were used.
        coverage: share of the passages that were searched, below 1 if shards did not answer.
        missing: which shards did not answer, and why.
    """

    hits: list[LocalHit]
    candidates: int
    reranked: int
    widened: bool = False
    seconds: Mapping[str, float] = field(default_factory=dict)
    outgrown: bool = False
    coverage: float = 1.0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalScores:
    """Scores by passage id.

    Attributes:
        scores: MaxSim by passage id.
        coverage: as in `LocalResult`.
        missing: as in `LocalResult`.
    """

    scores: Mapping[str, float]
    coverage: float = 1.0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardCoverage:
    """How much of an index answered.

    Attributes:
        share: share of all passages that the answering shards have.
        missing: why the others did not answer.
    """

    share: float = 1.0
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, sizes: Sequence[int | None], silent: Mapping[int, str]) -> ShardCoverage:
        """Compute the coverage.

        Args:
            sizes: passages by shard; one that was never read counts as the mean of the others.
            silent: why a shard did not answer.
        """
        known = [size for size in sizes if size is not None]
        mean = sum(known) / len(known) if known else 0.0
        filled = [mean if size is None else size for size in sizes]
        lost = sum(filled[shard] for shard in silent)
        share = max(0.0, 1.0 - lost / sum(filled)) if lost else 1.0
        return cls(share, tuple(f"shard-{shard}: {why}" for shard, why in sorted(silent.items())))


@dataclass(frozen=True, slots=True)
class CommitSummary:
    """The version that is now searchable.

    Attributes:
        version: its number.
        passages: its living passages.
        token_vectors: its living token vectors.
        seconds: time of the commit.
    """

    version: int
    passages: int
    token_vectors: int
    seconds: float
