"""What a search takes and gives, and what a commit says."""

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

    probes: centroids looked up for every query row.
    rerank: passages whose decoded vectors are scored with MaxSim (at least k), at most: fewer where no other can be among them.
    """

    probes: int | None = None
    rerank: int | None = None

    def __post_init__(self) -> None:
        """Raises: UsageError on a number below 1."""
        for name, least in (("probes", 1), ("rerank", 1)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise UsageError(f"search setting {name} must be a whole number of at least {least}, got {value!r}")
            object.__setattr__(self, name, int(value))  # not numpy's, which JSON does not take


@dataclass(frozen=True, slots=True)
class DenseForm:
    """Vectors of a dense model: one of each passage. normalized: whether they have length one."""

    dim: Annotated[int, msgspec.Meta(ge=1)]
    normalized: bool = True


@dataclass(frozen=True, slots=True)
class OneVectorForm:
    """The one vector of each passage that candidates `pooled` search (late_interaction.one_vector), stored as those of a dense
    model named ONE_VECTOR."""

    encoding: str
    dim: Annotated[int, msgspec.Meta(ge=1)]
    normalized: bool


@dataclass(frozen=True, slots=True)
class Storage:
    """How a new index keeps its vectors, as LocalIndex.create says. bits: None for those of the bundle's codebook, else 4."""

    codec: str = "residual"
    bits: int | None = None
    refine: bool = False

    @classmethod
    def chosen(cls, codec: str | None, bits: int | None, refine: bool) -> Storage | None:
        """Of what a user may name of it; None where that is nothing."""
        return cls(codec or cls().codec, bits, refine) if codec or bits is not None or refine else None


@dataclass(frozen=True, slots=True)
class LocalHit:
    """`score`: MaxSim in float32 over stored vectors: the int8 rows where the index keeps them, else as decoded.
    `approximate`: what the centroids alone said, where that stage ran."""

    passage: Passage
    score: float
    approximate: float


@dataclass(frozen=True, slots=True)
class LocalResult:
    """`hits` best first; equal scores in order of insertion.

    candidates: passages that the first stage found. reranked: those scored with MaxSim. widened: probing found fewer passages
    than are reranked (at least k), so that more was searched. seconds: wall time by stage. outgrown: the index has more than
    twice the token vectors that it was tuned with, so that the defaults were taken instead. coverage: share of the passages
    that were searched, below 1 where shards did not answer; missing: which, and why.
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
    """MaxSim by passage id. coverage, missing: as LocalResult has them."""

    scores: Mapping[str, float]
    coverage: float = 1.0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardCoverage:
    """share: of the passages of all shards, how many the shards that answered have. missing: why the others did not."""

    share: float = 1.0
    missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, sizes: Sequence[int | None], silent: Mapping[int, str]) -> ShardCoverage:
        """sizes: passages by shard; one that was never read counts as the mean of the others."""
        known = [size for size in sizes if size is not None]
        mean = sum(known) / len(known) if known else 0.0
        filled = [mean if size is None else size for size in sizes]
        lost = sum(filled[shard] for shard in silent)
        share = max(0.0, 1.0 - lost / sum(filled)) if lost else 1.0
        return cls(share, tuple(f"shard-{shard}: {why}" for shard, why in sorted(silent.items())))


@dataclass(frozen=True, slots=True)
class CommitSummary:
    """The version that is searchable now; `passages` and `token_vectors` are all that are live in it."""

    version: int
    passages: int
    token_vectors: int
    seconds: float
