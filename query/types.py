"""Inputs and outputs of a search besides its options, the same for both backends."""

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
    """An encoded query.

    Attributes:
        rows: `[q, d]`.
        dense: vector by name of each dense model that the search needs.
        text: for candidates that match words.
    """

    rows: Matrix
    dense: Mapping[str, Vector] = field(default_factory=dict)
    text: str | None = None


Query: TypeAlias = str | Matrix | QueryVectors


class Covered:
    """An answer that may cover only part of the index.

    Attributes:
        coverage: share of its documents that were considered, 0 to 1.
        degraded: why not all.
    """

    coverage: float
    degraded: tuple[str, ...]

    @property
    def full(self) -> bool:
        """Tell whether all documents were fully considered."""
        return self.coverage >= 1 and not self.degraded

    def check_full(self: C) -> C:
        """Return the answer.

        Raises:
            IncompleteAnswer: if it is not full.
        """
        if not self.full:
            why = "; ".join(self.degraded) or "no reason given"
            raise IncompleteAnswer(f"the answer covers {self.coverage:.1%} of the documents ({why})")
        return self


class ById(Covered, dict[str, T]):
    """Values by id.

    A missing id is unknown if the answer is full; otherwise it may belong to what was not considered.
    """

    def __init__(self, values: Mapping[str, T] | None = None, coverage: float = 1.0, degraded: Iterable[str] = ()) -> None:
        super().__init__(values or {})
        self.coverage, self.degraded = coverage, tuple(degraded)


class Ids(Covered, tuple[str, ...]):
    """Ids, all of them if the answer is full."""

    def __new__(cls, ids: Iterable[str] = (), coverage: float = 1.0, degraded: Iterable[str] = ()) -> Ids:
        """Make the ids of an answer."""
        made = super().__new__(cls, ids)
        made.coverage, made.degraded = coverage, tuple(degraded)
        return made


@dataclass(frozen=True, eq=False)
class EncodedQuery:
    """A checked and encoded query.

    Attributes:
        rows: `[q, d]` float32; none for a text if the bundle has no model.
        text: None if ready-made rows were given without one.
        encode_s: seconds that the encoders took.
        dense: vectors `[dim]` by name of the dense model.
        ready: whether the rows were supplied, so that they do not match the text's tokens.
    """

    rows: Matrix
    text: str | None
    encode_s: float = 0.0
    dense: Mapping[str, Vector] = field(default_factory=dict)
    ready: bool = False

    def row_scores(self, D: Matrix) -> tuple[float, ...]:
        """Return what each query row finds in a passage `D [t, d]`; nothing if it has no rows."""
        return tuple((self.rows @ D.T).max(axis=1).tolist()) if len(D) else ()


@dataclass(frozen=True, slots=True)
class Match:
    """A query word and the passage word that matched it best.

    Attributes:
        query_word: the query word.
        passage_word: the passage word.
        start: character offset into the explanation's text.
        end: character offset into the explanation's text.
        similarity: cosine of the two rows.
    """

    query_word: str
    passage_word: str
    start: int
    end: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a passage was found.

    Attributes:
        text: what was encoded: title and text.
        matches: one match per query word, in the query's order; of a word in several pieces, the piece that matched best.
        words: spans of the text's words `[w]`.
        similarities: `[m, w]`, each query word with each of them, the best of their pieces.
    """

    text: str
    matches: tuple[Match, ...]
    words: tuple[tuple[int, int], ...] = ()
    similarities: Matrix = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def spans(self, share: float = 0.5) -> list[tuple[int, int]]:
        """Return spans of the words that carry the match, in order, not overlapping.

        A word carries the match if its similarity is at least `share` of the way from the weakest to the best match of this
        passage.
        """
        if not self.matches:
            return []
        values = [match.similarity for match in self.matches]
        floor = min(values) + share * (max(values) - min(values))
        return sorted({(match.start, match.end) for match in self.matches if match.similarity >= floor})

    def to_json(self) -> dict[str, object]:
        """Return the explanation as JSON values."""
        return {"text": self.text, "matches": finite_json([asdict(match) for match in self.matches])}


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage.

    Attributes:
        rank: from 1.
        id: the document's id.
        passage_id: the passage's id.
        score: its MaxSim; with candidates `hybrid` its fused score; if a cross-encoder has read it, that one's. Hits that
            it has not read are shifted below them.
        title: the title.
        text: the text.
        metadata: value by field.
        index: the index that it comes from.
        stages: the scores that took part (`candidates`, `maxsim`, `bm25`, `dense`, `cross_encoder`), as each stage gave
            them.
        rows: with explain, what each query row found in it; they add up to its MaxSim.
        explanation: with explain, the words that matched.
        vectors: stored rows `[t, d]`, used to make the explanation.
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
        """Return the hit as JSON values."""
        data: dict[str, object] = {name: getattr(self, name) for name in ("rank", "id", "passage_id", "score", "index")}
        data |= {"title": self.title, "text": self.text, "metadata": dict(self.metadata), "stages": dict(self.stages)}
        if self.rows:
            data["rows"] = list(self.rows)
        if self.explanation is not None:
            data["explanation"] = self.explanation.to_json()
        return {name: finite_json(value) for name, value in data.items()}


@dataclass(frozen=True)
class SearchResult(Covered):
    """Hits, best first, and how they were found.

    Attributes:
        hits: the hits.
        candidates: the strategy used.
        matched: passages that the first stage found in the whole cluster (None if Vespa does not report it).
        reranked: most of them that got a MaxSim score.
        stage: `reranked`, or `candidates` for the first answer of `AsyncClient.stages`.
        chosen: why this strategy, if nobody named it.
        coverage: share of the documents that were searched, 0 to 1.
        searched: their number, if reported by Vespa.
        degraded: why the coverage is not complete.
        timings_ms: milliseconds by stage; `encode` is the query encoder, names that begin with `vespa_` are reported by
            Vespa.
        notes: what a user should know.
        reranked_with: the cross-encoder that ordered the best hits; '' if none was requested, or the time did not suffice
            (see notes).
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
        """Return the result as JSON values."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "hits"}
        data |= {"timings_ms": dict(self.timings_ms), "notes": list(self.notes), "degraded": list(self.degraded)}
        return {"hits": [hit.to_json() for hit in self.hits], **{name: finite_json(value) for name, value in data.items()}}
