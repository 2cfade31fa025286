"""What a search gives back, the same from both backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from late_interaction.metadata import Value

__all__ = ["Hit", "SearchResult"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage. `score` is its MaxSim; `stages` has what each stage gave it (`candidates`, `maxsim`)."""

    rank: int
    id: str
    passage_id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Value]
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """Hits best first, and how they came about.

    candidates: the strategy used. matched: passages that the first stage found (None where Vespa does not say).
    reranked: how many got a MaxSim score at most. coverage: share of the documents that were searched, 0 to 1.
    timings_ms: by stage; `encode` is the query encoder. notes: what a user should know, such as a widened search.
    """

    hits: tuple[Hit, ...]
    candidates: str
    matched: int | None
    reranked: int
    coverage: float = 1.0
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        return asdict(self)
