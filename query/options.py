"""The arguments of a search, checked once, and the settings of a client."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from late_interaction.errors import UsageError
from vespa_app.settings import MAX_HITS

__all__ = ["AUTO", "SCORED", "ClientSettings", "SearchOptions", "Weights", "check_count"]

AUTO = "auto"
SCORED = ("engine", "client")


@dataclass(frozen=True, slots=True)
class Weights:
    """Of candidates `hybrid`: how much each of the two orders counts."""

    maxsim: float = 1.0
    bm25: float = 1.0

    @classmethod
    def of(cls, given: Mapping[str, float] | None) -> Weights:
        """Raises: UsageError on another name, or a weight that is negative or no number."""
        given = given or {}
        for name, value in given.items():
            if name not in ("maxsim", "bm25"):
                raise UsageError(f"weights have the names maxsim and bm25, got {name!r}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
                raise UsageError(f"weight {name} must be a number of at least 0, got {value!r}")
        return cls(**{name: float(value) for name, value in given.items()})


@dataclass(frozen=True)
class SearchOptions:
    """As `Client.search` takes them. rerank, probes: None for the index's own. offset: None where there is one page. ids: of
    documents, None for all."""

    k: int = 10
    where: Mapping[str, object] | None = None
    candidates: str = AUTO
    rerank: int | None = None
    probes: int | None = None
    offset: int | None = None
    group: bool = False
    weights: Weights = field(default_factory=Weights)
    scored: str = "engine"
    explain: bool = False
    ids: tuple[str, ...] | None = None
    first_stage: bool = False

    def __post_init__(self) -> None:
        """Raises: UsageError naming the argument that is out of range."""
        check_count("k", self.k)
        for name in ("rerank", "probes"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        most = MAX_HITS - self.k
        if isinstance(self.first, bool) or not isinstance(self.first, int) or not 0 <= self.first <= most:
            raise UsageError(f"offset must be a whole number from 0 to {most} (with k={self.k}), got {self.offset!r}")
        if self.scored not in SCORED:
            raise UsageError(f"scored {self.scored!r} unknown; known: {', '.join(SCORED)}")

    @property
    def first(self) -> int:
        """Hits before the page."""
        return 0 if self.offset is None else self.offset

    @property
    def last(self) -> int:
        """Hits to the end of the page."""
        return self.first + self.k

    def reranked(self, default: int) -> int:
        """How many candidates get their MaxSim: every page of one search must have the same, or pages would not fit together.

        Raises: UsageError where the page ends behind them.
        """
        wanted = default if self.rerank is None else self.rerank
        if self.offset is None:
            return max(wanted, self.k)
        if self.last > wanted:
            raise UsageError(
                f"this page ends at hit {self.last}, and {wanted} candidates are reranked: raise rerank, on all pages"
            )
        return wanted


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """timeout: seconds that a search may take, unless it says otherwise. soft_timeout: Vespa gives what it has found when time
    is nearly up; without, it gives an error. retries: how often a query is sent again after a refused or broken connection, or
    an answer that asks to wait. hedge_after: seconds without an answer after which a query is sent a second time, and the
    first answer counts; None for never. connections: kept open to each address. require_full: an answer that does not cover
    all documents is an error (IncompleteAnswer). expected: documents that each index must have searched at least; fewer count
    as missing even where Vespa calls its answer full. version: of local indexes, an older one that is still there, by number or
    name; commits are not seen then.
    """

    timeout: float = 10.0
    soft_timeout: bool = True
    retries: int = 2
    hedge_after: float | None = None
    connections: int = 16
    require_full: bool = False
    expected: Mapping[str, int] = field(default_factory=dict)
    version: int | str | None = None

    def __post_init__(self) -> None:
        """Raises: UsageError naming the setting that is out of range."""
        check_seconds("timeout", self.timeout)
        if self.hedge_after is not None:
            check_seconds("hedge_after", self.hedge_after)
        if self.retries < 0 or self.connections < 1:
            raise UsageError(
                f"retries must be at least 0 and connections at least 1, got {self.retries} and {self.connections}"
            )


def check_seconds(name: str, value: float) -> float:
    """Raises: UsageError unless it is a time above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise UsageError(f"{name} must be above 0 seconds, got {value!r}")
    return float(value)


def check_count(name: str, value: int) -> int:
    """Raises: UsageError unless `value` is a whole number from 1 to 10,000."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_HITS:
        raise UsageError(f"{name} must be a whole number from 1 to {MAX_HITS}, got {value!r}")
    return value
