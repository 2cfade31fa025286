"""What a search takes besides the query, and what it gives back: the same from both backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np

from late_interaction.array_types import Matrix, Vector
from late_interaction.errors import IncompleteAnswer
from late_interaction.json_values import finite_json
from late_interaction.metadata import Value

__all__ = [
    "ById",
    "Covered",
    "EncodedQuery",
    "Explanation",
    "Hit",
    "Ids",
    "Match",
    "Matrix",
    "Query",
    "QueryVectors",
    "SearchResult",
]

T = TypeVar("T")
C = TypeVar("C", bound="Covered")


@dataclass(frozen=True, eq=False)
class QueryVectors:
    """A query that is encoded already. rows: `[q, d]`. dense: a vector by name of each dense model that the search asks. text:
    for candidates that match words."""

    rows: Matrix
    dense: Mapping[str, Vector] = field(default_factory=dict)
    text: str | None = None


Query: TypeAlias = str | Matrix | QueryVectors


class Covered:
    """An answer that may be of a part of the index only. coverage: share of its documents that were looked at, 0 to 1.
    degraded: why not all."""

    coverage: float
    degraded: tuple[str, ...]

    @property
    def full(self) -> bool:
        """Whether all documents were looked at, in full."""
        return self.coverage >= 1 and not self.degraded

    def check_full(self: C) -> C:
        """Raises: IncompleteAnswer where it is not full."""
        if not self.full:
            why = "; ".join(self.degraded) or "no reason given"
            raise IncompleteAnswer(f"the answer covers {self.coverage:.1%} of the documents ({why})")
        return self


class ById(Covered, dict[str, T]):
    """Values by id. An id that is missing is unknown where the answer is full, else it may be of what was not looked at."""

    def __init__(self, values: Mapping[str, T] | None = None, coverage: float = 1.0, degraded: Iterable[str] = ()) -> None:
        super().__init__(values or {})
        self.coverage, self.degraded = coverage, tuple(degraded)


class Ids(Covered, tuple[str, ...]):
    """Ids, all of them where the answer is full."""

    def __new__(cls, ids: Iterable[str] = (), coverage: float = 1.0, degraded: Iterable[str] = ()) -> Ids:
        made = super().__new__(cls, ids)
        made.coverage, made.degraded = coverage, tuple(degraded)
        return made


@dataclass(frozen=True, eq=False)
class EncodedQuery:
    """A query that was checked and encoded. rows: `[q, d]` float32; none of a text that the bundle has no model for. text: None
    where ready rows were given without one. encode_s: seconds that the encoders took. dense: its vectors `[dim]` by name of the
    dense model. ready: whether the rows were given, so that they are not those of the text's tokens."""

    rows: Matrix
    text: str | None
    encode_s: float = 0.0
    dense: Mapping[str, Vector] = field(default_factory=dict)
    ready: bool = False

    def row_scores(self, D: Matrix) -> tuple[float, ...]:
        """What each query row finds in a passage `D [t, d]`; nothing where it has no rows."""
        return tuple((self.rows @ D.T).max(axis=1).tolist()) if len(D) else ()


@dataclass(frozen=True, slots=True)
class Match:
    """`start` and `end` are character offsets into the explanation's text; `similarity` is the cosine of the two rows."""

    query_word: str
    passage_word: str
    start: int
    end: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """`text` is what was encoded: title and text. One match per query word, in the query's order: of a word that the
    tokenizer cut into pieces, the piece that matched best. words: spans of the text's words `[w]`; similarities: `[m, w]` of
    the query words with each of them, the best of their pieces."""

    text: str
    matches: tuple[Match, ...]
    words: tuple[tuple[int, int], ...] = ()
    similarities: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def spans(self, share: float = 0.5) -> list[tuple[int, int]]:
        """Spans of the words that carry the match, in order, not overlapping: those whose similarity is in the upper part
        between the weakest and the best match of this passage (`share` of the way up)."""
        if not self.matches:
            return []
        values = [match.similarity for match in self.matches]
        floor = min(values) + share * (max(values) - min(values))
        return sorted({(match.start, match.end) for match in self.matches if match.similarity >= floor})

    def to_json(self) -> dict[str, object]:
        return {"text": self.text, "matches": finite_json([asdict(match) for match in self.matches])}


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage. `score` is its MaxSim, of candidates `hybrid` its fused score, and where a cross-encoder has read it that
    one's; hits behind those are moved below them by one number.

    index: the index that it is from. stages: the scores that took part (`candidates`, `maxsim`, `bm25`, `dense`,
    `cross_encoder`), each as its stage gave it. rows: what
    each query row found in it, which adds up to its MaxSim, and explanation: the words that matched; both of a search that
    explains. vectors: stored rows `[t, d]`, on the way to an explanation.
    """

    rank: int
    id: str
    passage_id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Value]
    index: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[float, ...] = ()
    explanation: Explanation | None = None
    vectors: Matrix | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, object]:
        data: dict[str, object] = {name: getattr(self, name) for name in ("rank", "id", "passage_id", "score", "index")}
        data |= {"title": self.title, "text": self.text, "metadata": dict(self.metadata), "stages": dict(self.stages)}
        if self.rows:
            data["rows"] = list(self.rows)
        if self.explanation is not None:
            data["explanation"] = self.explanation.to_json()
        return {name: finite_json(value) for name, value in data.items()}


@dataclass(frozen=True)
class SearchResult(Covered):
    """Hits best first, and how they came about.

    candidates: the strategy used; chosen: why, where nobody named it. matched: passages that the first stage found in the
    whole cluster (None where Vespa does not say). reranked: how many of them got a MaxSim score at most. stage: `reranked`, or
    `candidates` for the first answer of `AsyncClient.stages`. coverage: share of the documents that were searched, 0 to 1.
    searched: their number, where Vespa says it. degraded: why coverage is not whole. timings_ms: by stage; `encode` is the
    query encoder, names that begin with `vespa_` are what Vespa says of itself. notes: what a user should know. reranked_with:
    the cross-encoder that put the best hits in order; '' where none was asked for, or the time did not suffice, as a note says.
    """

    hits: tuple[Hit, ...]
    candidates: str
    matched: int | None
    reranked: int
    stage: str = "reranked"
    chosen: str = ""
    coverage: float = 1.0
    searched: int | None = None
    degraded: tuple[str, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reranked_with: str = ""

    def to_json(self) -> dict[str, object]:
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "hits"}
        data |= {"timings_ms": dict(self.timings_ms), "notes": list(self.notes), "degraded": list(self.degraded)}
        return {"hits": [hit.to_json() for hit in self.hits], **{name: finite_json(value) for name, value in data.items()}}
