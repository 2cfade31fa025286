"""Search in a local PLAID index, of shards or not."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.documents import Passage
from late_interaction.filters import Filter, parse_where
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalResult, SearchSettings
from late_interaction.plaid.shards import AnyIndex, ShardedIndex, open_index
from late_interaction.plaid.shards.merging import Coverage
from query.backend import Where, choose_strategy
from query.fusion import fused
from query.grouping import best_passages, grouped
from query.options import SearchOptions
from query.steps import Plan, at_once
from query.types import Hit, Matrix, Question, SearchResult
from query.words import Words

__all__ = ["LocalSearch"]

BY_WORDS = 200  # passages that words find, and that get a MaxSim score
PAGED = 500  # passages that pages are cut from, where no rerank is given
LEAST_S = 0.001


class LocalSearch:
    """Sees each commit to the index at the next search. A search here is not interrupted: the deadline is that of shards."""

    strategies = ("centroid", "bm25", "hybrid", "exhaustive")

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, version: int | str | None = None) -> None:
        """version: an older one. Raises: LocalIndexError."""
        self.index = open_index(path, version=version)
        self.address = str(path)
        self._clock = clock

    @property
    def name(self) -> str:
        return Path(self.address).resolve().name

    @property
    def bundle(self) -> Bundle:
        return self.index.bundle

    @property
    def schema(self) -> MetadataSchema:
        return self.index.schema

    def search(self, question: Question, options: SearchOptions, deadline: float) -> Plan[SearchResult]:
        return at_once(lambda: self._search(question, options, deadline))

    def score(self, question: Question, passage_ids: Sequence[str], deadline: float) -> Plan[Mapping[str, float]]:
        def score() -> Mapping[str, float]:
            return self._pinned(deadline).scores(question.rows, passage_ids).scores

        return at_once(score)

    def get(self, document_ids: Sequence[str], where: Where, deadline: float) -> Plan[dict[str, tuple[Passage, ...]]]:
        def get() -> dict[str, tuple[Passage, ...]]:
            index = self._pinned(deadline)
            found = index.passages_of(document_ids, parse_where(where, index.schema))
            return {id_: tuple(replace(p, metadata=index.schema.shown(p.metadata)) for p in own) for id_, own in found.items()}

        return at_once(get)

    def select(self, where: Where, limit: int, deadline: float) -> Plan[tuple[str, ...]]:
        def select() -> tuple[str, ...]:
            index = self._pinned(deadline)
            filter_ = parse_where(where, index.schema)
            return tuple(dict.fromkeys(itertools.islice(index.documents_with(filter_), limit)))

        return at_once(select)

    def vectors(self, passage_ids: Sequence[str], deadline: float) -> Plan[Mapping[str, Matrix]]:
        def vectors() -> Mapping[str, Matrix]:
            index = self._pinned(deadline)
            return {id_: index.vectors(id_) for id_ in passage_ids if index.passage(id_) is not None}

        return at_once(vectors)

    def close(self) -> None:
        """Ends the processes of an index of shards."""
        if isinstance(self.index, ShardedIndex):
            self.index.close()

    def _pinned(self, deadline: float) -> AnyIndex:
        """The newest version, which another thread's search does not move; shards have until the deadline."""
        self.index.refresh()
        index = self.index.pinned()
        if isinstance(index, ShardedIndex):
            index.settings = replace(index.settings, timeout=max(LEAST_S, deadline - self._clock()))
        return index

    def _search(self, question: Question, options: SearchOptions, deadline: float) -> SearchResult:
        unfit = {} if question.text else dict.fromkeys(("bm25", "hybrid"), "it needs the query as text, not ready rows")
        strategy, chosen = choose_strategy(options.candidates, self.strategies, self.address, question, unfit)
        index = self._pinned(deadline)
        where = parse_where(options.where, index.schema)
        if options.offset is not None and strategy != "exhaustive":  # all pages are cut from one list
            result = self._best(index, strategy, question, options, where, options.reranked(PAGED))
            if options.group:
                result = replace(result, hits=best_passages(result.hits, options.last))
        elif options.group:
            result = grouped(lambda count: self._best(index, strategy, question, options, where, count), options.last)
        else:
            result = self._best(index, strategy, question, options, where, options.last)
        hits = result.hits[options.first : options.last]
        if options.explain:
            hits = tuple(replace(hit, rows=question.row_scores(index.vectors(hit.passage_id))) for hit in hits)
        timings = {"encode": 1000 * question.encode_s, **result.timings_ms}
        stage = "candidates" if options.first_stage and strategy != "exhaustive" else "reranked"
        return replace(result, hits=hits, chosen=chosen, timings_ms=timings, stage=stage)

    def _best(
        self, index: AnyIndex, strategy: str, question: Question, options: SearchOptions, where: Filter | None, count: int
    ) -> SearchResult:
        start = time.perf_counter()
        if strategy in ("bm25", "hybrid"):
            return self._by_words(index, strategy, question, options, where, count)
        rerank = None if options.rerank is None else max(count, options.rerank)
        if options.first_stage or options.offset is not None:
            rerank = count
        settings = SearchSettings(options.probes, rerank) if rerank is not None or options.probes is not None else None
        found = index.search(
            question.rows, count, where=where, ids=options.ids, settings=settings, exact=strategy == "exhaustive"
        )
        hits = tuple(
            Hit(
                rank=rank,
                id=hit.passage.document_id,
                passage_id=hit.passage.id,
                score=hit.score,
                title=hit.passage.title,
                text=hit.passage.text,
                metadata=index.schema.shown(hit.passage.metadata),
                index=self.name,
                stages={"candidates": hit.approximate, "maxsim": hit.score},
            )
            for rank, hit in enumerate(found.hits, start=1)
        )
        return SearchResult(
            hits=hits,
            candidates=strategy,
            matched=found.candidates,
            reranked=found.reranked,
            coverage=found.coverage,
            degraded=tuple(found.missing),
            timings_ms={
                **{stage: 1000 * seconds for stage, seconds in found.seconds.items()},
                "search": 1000 * (time.perf_counter() - start),
            },
            notes=(*_notes(found), *_partial(found.coverage, found.missing)),
        )

    def _by_words(
        self, index: AnyIndex, strategy: str, question: Question, options: SearchOptions, where: Filter | None, count: int
    ) -> SearchResult:
        """Passages that share words with the text, ordered by MaxSim; for hybrid those and the best by MaxSim, fused."""
        assert question.text is not None
        start = time.perf_counter()
        rerank = max(count, options.rerank or BY_WORDS)
        words = self._words.search(index, question.text, rerank, where, options.ids)
        scored = index.scores(question.rows, [id_ for id_, _ in words])
        read = index.readable if isinstance(index, ShardedIndex) else Coverage(1.0, ())
        maxsim, coverage, missing = dict(scored.scores), min(scored.coverage, read.share), {*scored.missing, *read.missing}
        passages: dict[str, Passage] = {}
        words = [(id_, score) for id_, score in words if id_ in maxsim]  # those of a shard that did not answer are left out
        scores = {id_: score for id_, score in maxsim.items() if math.isfinite(score)}
        notes: tuple[str, ...] = ()
        if strategy == "hybrid":
            found = index.search(question.rows, rerank, where=where, ids=options.ids)
            coverage, missing, notes = min(coverage, found.coverage), missing | set(found.missing), _notes(found)
            maxsim |= {hit.passage.id: hit.score for hit in found.hits}
            passages = {hit.passage.id: hit.passage for hit in found.hits}
            finite = {id_: score for id_, score in maxsim.items() if math.isfinite(score)}
            scores = fused(finite, words, options.weights)
        by_words = dict(words)
        if options.first_stage:
            scores = by_words
        best = sorted(scores, key=lambda id_: (-scores[id_], id_))[:count]
        hits = []
        for rank, id_ in enumerate(best, start=1):
            passage = passages.get(id_) or index.passage(id_)
            assert passage is not None  # words were read from it
            stages = {"maxsim": maxsim[id_], "bm25": by_words.get(id_, 0.0)}
            metadata = index.schema.shown(passage.metadata)
            hits.append(
                Hit(rank, passage.document_id, id_, scores[id_], passage.title, passage.text, metadata, self.name, stages)
            )
        timings = {"search": 1000 * (time.perf_counter() - start)}
        gone = tuple(sorted(missing))
        notes += _partial(coverage, gone)
        return SearchResult(
            tuple(hits), strategy, len(maxsim), len(maxsim), coverage=coverage, degraded=gone, timings_ms=timings, notes=notes
        )

    @functools.cached_property
    def _words(self) -> Words:
        return Words()


def _notes(found: LocalResult) -> tuple[str, ...]:
    notes = []
    if found.widened:
        notes.append("the probed centroids have fewer passages than are reranked, so the search was widened")
    if found.outgrown:
        notes.append("the index has more than doubled since it was tuned: default effort was taken; tune it again")
    return tuple(notes)


def _partial(coverage: float, missing: Sequence[str]) -> tuple[str, ...]:
    """What a user should know of an answer without some of the shards."""
    return (f"only {coverage:.0%} of the passages were searched: {'; '.join(missing)}",) if missing else ()
