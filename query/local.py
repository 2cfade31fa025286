"""Search in a local PLAID index, of shards or not."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.filters import Filter, parse_filter
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalResult, SearchSettings
from late_interaction.plaid.shards import ShardedIndex, ShardSettings, open_index
from query.checks import check_count, choose_strategy, query_rows
from query.grouping import grouped
from query.retriever import Question
from query.types import Hit, SearchResult
from query.words import Words, fused

__all__ = ["LocalRetriever"]

Matrix = NDArray[np.float32]
BY_WORDS = 200  # passages that words find, and that get a MaxSim score
WIDENED = "pruning left fewer than k passages, so the search was widened"


class LocalRetriever:
    """Sees each commit to the index at the next search."""

    strategies = ("centroid", "bm25", "hybrid", "exhaustive")

    def __init__(self, path: Path, *, precision: str | None = None, shards: ShardSettings | None = None) -> None:
        """shards: how long to wait for shards, where the index has any."""
        self.index = open_index(path, shards)
        self.address = str(path)
        self._precision = precision

    @property
    def bundle(self) -> Bundle:
        return self.index.bundle

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.bundle, precision=self._precision)

    @property
    def schema(self) -> MetadataSchema:
        return self.index.schema

    def search(
        self,
        query: Question,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
        rerank: int | None = None,
        group: bool = False,
    ) -> SearchResult:
        k = check_count("k", k)
        if group:
            return grouped(lambda n: self.search(query, n, where=where, candidates=candidates, rerank=rerank), k)
        strategy = choose_strategy(candidates, self.strategies, self.address)
        self.index.refresh()
        filter_ = parse_filter(where, self.schema) if where else None
        start = time.perf_counter()
        rows = query_rows(query, self.encoder)
        encoded = time.perf_counter()
        settings = SearchSettings(rerank=max(k, check_count("rerank", rerank))) if rerank is not None else None
        if strategy in ("bm25", "hybrid"):
            if not isinstance(query, str):
                raise UsageError(f"candidates {strategy} need the query as text, not ready rows")
            return self._by_words(strategy, query, rows, k, filter_, rerank or BY_WORDS, encoded - start)
        found = self.index.search(rows, k, where=filter_, settings=settings, exact=strategy == "exhaustive")
        done = time.perf_counter()
        hits = tuple(
            Hit(
                rank=rank,
                id=hit.passage.document_id,
                passage_id=hit.passage.id,
                score=hit.score,
                title=hit.passage.title,
                text=hit.passage.text,
                metadata=self.schema.shown(hit.passage.metadata),
                stages={"candidates": hit.approximate, "maxsim": hit.score},
            )
            for rank, hit in enumerate(found.hits, start=1)
        )
        timings = {"encode": encoded - start, **found.seconds, "search": done - encoded}
        return SearchResult(
            hits=hits,
            candidates=strategy,
            matched=found.candidates,
            reranked=found.reranked,
            coverage=found.coverage,
            timings_ms={stage: 1000 * seconds for stage, seconds in timings.items()},
            notes=(*_notes(found), *_partial(found.coverage, found.missing)),
        )

    def _by_words(
        self, strategy: str, text: str, rows: Matrix, k: int, where: Filter | None, rerank: int, encoding: float
    ) -> SearchResult:
        """Passages that share words with the text, ordered by MaxSim; for hybrid those and the best by MaxSim, fused."""
        start = time.perf_counter()
        rerank = max(k, rerank)
        index = self.index.pinned()  # another thread's search may move self.index meanwhile
        words = self._words.search(index, text, rerank, where)
        scored = index.scores(rows, [id_ for id_, _ in words])
        maxsim, coverage, missing = dict(scored.scores), scored.coverage, set(scored.missing)
        words = [(id_, score) for id_, score in words if id_ in maxsim]  # those of a shard that did not answer are left out
        scores = {id_: score for id_, score in maxsim.items() if math.isfinite(score)}
        notes: tuple[str, ...] = ()
        if strategy == "hybrid":
            found = index.search(rows, rerank, where=where)
            coverage, missing, notes = min(coverage, found.coverage), missing | set(found.missing), _notes(found)
            maxsim |= {hit.passage.id: hit.score for hit in found.hits}
            scores = fused({id_: score for id_, score in maxsim.items() if math.isfinite(score)}, words)
        by_words = dict(words)
        best = sorted(scores, key=lambda id_: (-scores[id_], id_))[:k]
        hits = []
        for rank, id_ in enumerate(best, start=1):
            passage = index.passage(id_)
            assert passage is not None
            stages = {"maxsim": maxsim[id_], "bm25": by_words.get(id_, 0.0)}
            metadata = self.schema.shown(passage.metadata)
            hits.append(Hit(rank, passage.document_id, id_, scores[id_], passage.title, passage.text, metadata, stages))
        seconds = time.perf_counter() - start
        timings = {"encode": 1000 * encoding, "search": 1000 * seconds}
        notes += _partial(coverage, sorted(missing))
        return SearchResult(tuple(hits), strategy, len(maxsim), len(maxsim), coverage, timings, notes)

    @functools.cached_property
    def _words(self) -> Words:
        return Words()

    def close(self) -> None:
        """Ends the processes of an index of shards."""
        if isinstance(self.index, ShardedIndex):
            self.index.close()


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
