"""The optional last stage of a search: the best hits in the order of a cross-encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from late_interaction.cross_encoder import CrossEncoder
from late_interaction.documents import passage_text
from late_interaction.errors import UsageError
from query.options import SearchOptions
from query.types import EncodedQuery, Hit, SearchResult

__all__ = ["RERANKED_TOP", "LastStage"]

RERANKED_TOP = 50  # default number of hits that are read
LATE = "the cross-encoder would not have finished in time, so the hits keep the order of the previous stage"
RESERVE, MOST_RESERVE_S = 0.1, 0.3  # share of the time kept for what comes after it


@dataclass(frozen=True)
class LastStage:
    """A cross-encoder as last stage. options: of the whole search."""

    encoder: CrossEncoder
    options: SearchOptions

    @property
    def top(self) -> int:
        """Return how many hits the cross-encoder reads."""
        return self.options.rerank_with_top or RERANKED_TOP

    @property
    def before(self) -> SearchOptions:
        """Return the options of the stages before it: all hits that it reads from the first on, and all of the page."""
        return replace(
            self.options, k=max(self.top, self.options.last), offset=None if self.options.offset is None else 0,
            rerank_with=None, rerank_with_top=None,
        )  # fmt: skip

    def check(self, queries: Sequence[EncodedQuery]) -> None:
        """Check that all queries have text.

        Raises:
            UsageError: if one has none.
        """
        if any(query.text is None for query in queries):
            raise UsageError("a cross-encoder needs the query's text, but ready-made rows have none; give text in QueryVectors")

    def ordered(
        self, query: EncodedQuery, found: SearchResult, timeout: float, deadline: float, clock: Callable[[], float]
    ) -> SearchResult:
        """Return the requested page of what `before` has found. timeout: of the whole search.

        Raises:
            BundleError: if the cross-encoder cannot be loaded.
        """
        assert query.text is not None
        start = time.perf_counter()
        read, behind = found.hits[: self.top], found.hits[self.top :]
        scores = self.encoder.scores(
            query.text, [passage_text(hit.title, hit.text) for hit in read],
            deadline=deadline - min(RESERVE * timeout, MOST_RESERVE_S), clock=clock,
        )  # fmt: skip
        if scores is None:
            found = replace(found, notes=(*found.notes, LATE))
        else:
            found = replace(found, hits=_joined(read, scores, behind), reranked_with=self.encoder.name)
        took = 1000 * (time.perf_counter() - start)
        page = found.hits[self.options.first : self.options.last]
        return replace(found, hits=page, timings_ms={**found.timings_ms, "cross_encoder": took})


def _joined(read: Sequence[Hit], scores: Sequence[float], behind: Sequence[Hit]) -> tuple[Hit, ...]:
    """Join both parts.

    Equal scores keep their order. Hits after those that were read keep their order and distances, below the last one read.
    """
    scored = [
        replace(hit, score=score, stages={**hit.stages, "cross_encoder": score})
        for hit, score in zip(read, scores, strict=True)
    ]
    scored.sort(key=lambda hit: -hit.score)
    if behind:
        least = scored[-1].score
        shift = min(0.0, least - behind[0].score)
        scored += [replace(hit, score=min(least, hit.score + shift)) for hit in behind]
    first = read[0].rank if read else 1
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(scored, start=first))
