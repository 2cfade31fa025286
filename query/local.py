"""Search in a local PLAID index, with or without shards."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.cores import cores
from late_interaction.documents import Passage
from late_interaction.errors import LocalIndexError
from late_interaction.filters import Filter, parse_where
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import PlaidIndex, SearchSettings, open_index, sharding_at
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.types import ShardCoverage
from query.backend import Where, choose_strategy, dense_of_query, unfit_for
from query.fusion import fused
from query.grouping import best_passages, grouped
from query.local_finds import FINDS_BY, Finds, notes_of
from query.options import SearchOptions
from query.plans import Plan, at_once
from query.types import ById, EncodedQuery, Hit, Ids, SearchResult
from vespa_app.settings.application_settings import parts_of

__all__ = ["LocalSearch"]

FOUND = 200  # passages that each of several strategies finds, by words or a dense vector
FOUND_POOLED = 500  # the same of candidates pooled
PAGED = 500  # passages that pages are cut from, if no rerank is given
LEAST_S = 0.001


class LocalSearch:
    """A local index as `SearchIndex`.

    The next search sees each commit, and another index in the folder. A search here is not interrupted: only shards have
    the deadline.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, version: int | str | None = None) -> None:
        """Open the index. version: an older one.

        Raises:
            LocalIndexError: if there is no index or no such version.
        """
        self.index = open_index(path, version=version)
        self.address = str(path)
        self._clock = clock
        self._version = version
        self._moving = threading.Lock()
        self._moves = True
        self._left: list[PlaidIndex] = []  # replaced indexes, whose searches may still run

    def now(self, deadline: float) -> LocalSearch:
        """Return the index in its current state."""
        with self._moving:
            if self._replaced():
                left, self.index = self.index, open_index(Path(self.address), version=self._version)
                self._left += [left] if left.sharding else []  # workers of shards
            self.index.refresh()
            still = copy.copy(self)
            still.index, still._moves = self.index.pinned(), False
        return still

    def _replaced(self) -> bool:
        """Tell whether the folder now holds an index with other shards."""
        if self._version is not None or not Path(self.address).is_dir():
            return False
        return sharding_at(self.address) != self.index.sharding

    @property
    def name(self) -> str:
        """Return the folder."""
        return Path(self.address).resolve().name

    @property
    def bundle(self) -> Bundle:
        """Return the index's bundle."""
        return self.index.bundle

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self.index.schema

    def settled(self, options: SearchOptions) -> SearchOptions:
        """Return the options with default weights and fusion."""
        return options

    @property
    def strategies(self) -> tuple[str, ...]:
        """Return the known strategies; `dense` only if the index has dense models."""
        some = (("pooled", self.index.one_vector), ("dense", self.index.dense))
        return ("centroid", "bm25", *(name for name, there in some if there), "hybrid", "exhaustive")

    def dense_needed(self, options: SearchOptions) -> Mapping[str, int]:
        """Return the dense models whose query vector the search needs."""
        return dense_of_query(
            options, self.strategies, {name: form.dim for name, form in self.index.dense.items()}, self.address
        )

    def search(self, query: EncodedQuery, options: SearchOptions, deadline: float) -> Plan[SearchResult]:
        """Plan a search."""
        return at_once(lambda: self._search(query, options, deadline))

    def search_many(self, queries: Sequence[EncodedQuery], options: SearchOptions, deadline: float) -> Plan[list[SearchResult]]:
        """Plan several searches on all cores.

        With shards, one query runs after another, because their processes already use all cores.
        """
        threads = 1 if self.index.sharding else min(cores(), len(queries))

        def search() -> list[SearchResult]:
            """Search."""
            if threads < 2:
                return [self._search(query, options, deadline) for query in queries]
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(lambda query: self._search(query, options, deadline), queries))

        return at_once(search)

    def score(self, query: EncodedQuery, passage_ids: Sequence[str], deadline: float) -> Plan[ById[float]]:
        """Plan MaxSim with stored passages."""

        def score() -> ById[float]:
            """Score."""
            scored = self._pinned(deadline).scores(query.rows, passage_ids)
            return ById(scored.scores, scored.coverage, scored.missing)

        return at_once(score)

    def get(self, document_ids: Sequence[str], where: Where, deadline: float) -> Plan[ById[tuple[Passage, ...]]]:
        """Plan to read passages."""

        def get() -> ById[tuple[Passage, ...]]:
            """Read the passages."""
            index = self._pinned(deadline)
            filter_ = parse_where(where, index.schema)
            parts, read = _readable(index)
            passages: dict[str, list[Passage]] = {}
            for part in parts:
                for id_, own in part.passages_of(document_ids, filter_).items():
                    passages.setdefault(id_, []).extend(replace(p, metadata=index.schema.shown(p.metadata)) for p in own)
            ordered = {id_: tuple(sorted(own, key=Passage.place)) for id_, own in passages.items()}
            return ById(ordered, read.share, read.missing)

        return at_once(get)

    def select(self, where: Where, limit: int, deadline: float) -> Plan[Ids]:
        """Plan to read document ids."""

        def select() -> Ids:
            """Read the ids."""
            index = self._pinned(deadline)
            filter_ = parse_where(where, index.schema)
            parts, read = _readable(index)
            selected = itertools.chain.from_iterable(part.documents_with(filter_) for part in parts)
            return Ids(dict.fromkeys(itertools.islice(selected, limit)), read.share, read.missing)

        return at_once(select)

    def vectors(self, passage_ids: Sequence[str], deadline: float) -> Plan[ById[Matrix]]:
        """Plan to read stored vectors."""

        def vectors() -> ById[Matrix]:
            """Read the vectors."""
            parts, read = _readable(self._pinned(deadline))
            owners = {id_: part for id_ in passage_ids for part in parts if part.snapshot.find(id_) is not None}
            return ById({id_: part.vectors(id_) for id_, part in owners.items()}, read.share, read.missing)

        return at_once(vectors)

    def close(self) -> None:
        """Stop the processes of an index of shards."""
        for index in (self.index, *self._left):
            index.close()

    def _pinned(self, deadline: float) -> PlaidIndex:
        """Return the newest version, unaffected by other threads' searches; shards have until the deadline."""
        index = self.now(deadline).index if self._moves else self.index
        return index.pinned(timeout=max(LEAST_S, deadline - self._clock()))

    def _search(self, query: EncodedQuery, options: SearchOptions, deadline: float) -> SearchResult:
        needed = self.dense_needed(options)
        unfit = unfit_for(query, options, next(iter(needed), None))
        strategy, chosen = choose_strategy(options.candidates, self.strategies, self.address, unfit)
        index = self._pinned(deadline)
        where = parse_where(options.where, index.schema)
        if options.offset is not None and strategy != "exhaustive":  # all pages are cut from one list
            result = self._best(index, strategy, query, options, where, options.reranked(PAGED))
            if options.group:
                result = replace(result, hits=best_passages(result.hits, options.last))
        elif options.group:
            result = grouped(lambda count: self._best(index, strategy, query, options, where, count), options.last)
        else:
            result = self._best(index, strategy, query, options, where, options.last)
        hits = result.hits[options.first : options.last]
        if options.explain:
            stored = [index.vectors(hit.passage_id) for hit in hits]
            hits = tuple(replace(hit, rows=query.row_scores(D), vectors=D) for hit, D in zip(hits, stored, strict=True))
        timings = {"encode": 1000 * query.encode_s, **result.timings_ms}
        stage = "candidates" if options.first_stage and strategy != "exhaustive" else "reranked"
        return replace(result, hits=hits, chosen=chosen, timings_ms=timings, stage=stage)

    def _best(
        self, index: PlaidIndex, strategy: str, query: EncodedQuery, options: SearchOptions, where: Filter | None, count: int
    ) -> SearchResult:
        start = time.perf_counter()
        if strategy not in ("centroid", "exhaustive"):
            return self._by_finders(index, strategy, query, options, where, count)
        rerank = None if options.rerank is None else max(count, options.rerank)
        if options.first_stage or options.offset is not None:
            rerank = count
        settings = SearchSettings(options.probes, rerank) if rerank is not None or options.probes is not None else None
        best = index.search(query.rows, count, where=where, ids=options.ids, settings=settings, exact=strategy == "exhaustive")
        name = self.name
        hits = tuple(
            Hit(
                rank=rank,
                id=hit.passage.document_id,
                passage_id=hit.passage.id,
                score=hit.score,
                title=hit.passage.title,
                text=hit.passage.text,
                metadata=index.schema.shown(hit.passage.metadata),
                index=name,
                stages={"candidates": hit.approximate, "maxsim": hit.score},
            )
            for rank, hit in enumerate(best.hits, start=1)
        )
        return SearchResult(
            hits=hits,
            candidates=strategy,
            matched=best.candidates,
            reranked=best.reranked,
            coverage=best.coverage,
            degraded=tuple(best.missing),
            timings_ms={
                **{stage: 1000 * seconds for stage, seconds in best.seconds.items()},
                "search": 1000 * (time.perf_counter() - start),
            },
            notes=(*notes_of(best), *_partial(best.coverage, best.missing)),
        )

    def _by_finders(
        self, index: PlaidIndex, strategy: str, query: EncodedQuery, options: SearchOptions, where: Filter | None, count: int
    ) -> SearchResult:
        """Return what several strategies find, ordered by MaxSim; with hybrid by their fused scores."""
        start = time.perf_counter()
        finds = Finds(index, query, options, where, next(iter(self.dense_needed(options)), ""))
        weights = options.fusion_weights
        asked = list(weights) if strategy == "hybrid" else [FINDS_BY[finder] for finder in parts_of(strategy)]
        for score in asked:
            finds.find(score, max(count, options.rerank or _found(index, score)))
        named = asked if strategy == "hybrid" else dict.fromkeys(["maxsim", *asked])
        scores = {name: finds.scores(name) for name in named}
        final = scores["maxsim"] if strategy != "hybrid" else fused(scores, weights, options.fusion or "rrf")
        order = finds.first_order() if options.first_stage else final
        best = sorted((id_ for id_ in finds.ids if id_ in order and id_ in final), key=lambda id_: (-order[id_], id_))[:count]
        hits, name = [], self.name
        for rank, id_ in enumerate(best, start=1):
            passage = finds.passage(id_)
            metadata, stages = index.schema.shown(passage.metadata), finds.stages(id_, scores)
            hits.append(Hit(rank, passage.document_id, id_, order[id_], passage.title, passage.text, metadata, name, stages))
        timings = {"search": 1000 * (time.perf_counter() - start)}
        gone = tuple(sorted(finds.missing))
        return SearchResult(
            tuple(hits), strategy, len(finds.ids), len(scores.get("maxsim", ())), coverage=finds.coverage, degraded=gone,
            timings_ms=timings, notes=(*finds.notes, *_partial(finds.coverage, gone)),
        )  # fmt: skip


def _found(index: PlaidIndex, score: str) -> int:
    """Return how many passages a strategy finds if the query does not set it."""
    measured = index.bundle.manifest.candidates
    if score != "candidates":
        return FOUND
    return measured.rerank if measured is not None and measured.strategy == "pooled" else FOUND_POOLED


def _readable(index: PlaidIndex) -> tuple[list[LocalIndex], ShardCoverage]:
    """Return what can be read of the index, and how much that is; LocalIndexError if nothing can."""
    parts = list(index.readers().values())
    read = index.readable
    if not parts:
        raise LocalIndexError(f"{index.path}: {'; '.join(read.missing)}")
    return parts, read


def _partial(coverage: float, missing: Sequence[str]) -> tuple[str, ...]:
    """Return a note about missing shards."""
    return (f"only {coverage:.0%} of the passages were searched: {'; '.join(missing)}",) if missing else ()
