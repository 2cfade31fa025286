"""Search in a Vespa application that this project generated: one index of it, or several in one request."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Passage
from late_interaction.errors import UsageError, VespaBusy, VespaRefused, VespaUnreachable
from late_interaction.filters import parse_where
from late_interaction.maxsim import maxsim_many
from late_interaction.metadata import MetadataSchema
from query.backend import Where, choose_strategy, dense_of_query
from query.fusion import fused
from query.options import ClientSettings, SearchOptions
from query.plans import Plan, VespaAnswer, VespaQuery, together
from query.types import ById, EncodedQuery, Hit, Ids, SearchResult
from query.vespa_answer import VespaCoverage, coverage_of, hits_of, joint, timings_of
from query.vespa_request import (
    Request,
    documents_clause,
    score_request,
    search_request,
    stored_request,
    unfit_strategies,
    vectors_request,
)
from query.yql import filter_to_yql
from vespa_app.codecs import CODECS, VECTORS, Codebooks
from vespa_app.running import Application
from vespa_app.running.passage_fields import STORED
from vespa_app.settings.application_settings import MAX_HITS

__all__ = ["VespaIndex", "search_joined"]

T = TypeVar("T")

DOCUMENTS = 256  # asked for at once
VECTORS_AT_ONCE = 100  # passages, some 100 kB each as hex
DESCRIBED_S = 5.0  # an application with another bundle is noticed after so many seconds
LEAST_S = 0.001
Follow: TypeAlias = "Callable[[VespaIndex, float], tuple[Application, Bundle]]"


class VespaIndex:
    """One index (schema) of an application."""

    def __init__(
        self,
        application: Application,
        bundle: Bundle,
        settings: ClientSettings,
        *,
        follow: Follow | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """follow: the application as it describes itself now, and its bundle; None where it is not asked again."""
        self.application = application
        self.bundle = bundle
        self._settings = settings
        self._follow, self._clock = follow, clock
        self._described = clock()
        self._describing = threading.Lock()
        self._newest = self
        self._most_searched = 0

    def now(self, deadline: float) -> VespaIndex:
        """The description is read again when it is older than DESCRIBED_S; where it cannot be for the moment, the query itself
        says why."""
        with self._describing:
            if self._follow is None or self._clock() - self._described < DESCRIBED_S:
                return self._newest
            newest = self._newest
            try:
                application, bundle = self._follow(newest, max(LEAST_S, min(DESCRIBED_S, deadline - self._clock())))
            except (VespaUnreachable, VespaBusy):
                return newest
            self._described = self._clock()
            if application != newest.application:
                self._newest = VespaIndex(application, bundle, self._settings, clock=self._clock)
            return self._newest

    @property
    def name(self) -> str:
        return self.application.settings.schema

    @property
    def address(self) -> str:
        return f"{self.application.url}#{self.name}"

    @property
    def url(self) -> str:
        return self.application.url

    @property
    def schema(self) -> MetadataSchema:
        return self.application.settings.metadata

    @property
    def strategies(self) -> tuple[str, ...]:
        return self.application.settings.candidates

    @functools.cached_property
    def books(self) -> Codebooks:
        return self.application.books(self.bundle)

    def strategy(self, query: EncodedQuery, options: SearchOptions) -> tuple[str, str]:
        """Raises: UsageError."""
        if options.fusion == "sum" or len(options.finders) > 1:
            raise UsageError(f"{self.address} has no fusion by sum and no joined candidates")
        unfit = unfit_strategies(self.application.settings, query, options)
        return choose_strategy(options.candidates, self.strategies, self.address, unfit)

    def request(self, query: EncodedQuery, options: SearchOptions, strategy: str) -> Request:
        """Raises: FilterError, UsageError, SettingsError."""
        return search_request(self.application.description, self.books, query, options, strategy)

    def dense_needed(self, options: SearchOptions) -> Mapping[str, int]:
        return dense_of_query(options, self.strategies, {}, self.address)

    def search(self, query: EncodedQuery, options: SearchOptions, deadline: float) -> Plan[SearchResult]:
        return (yield from search_joined([self], query, options, deadline))[0]

    def search_many(self, queries: Sequence[EncodedQuery], options: SearchOptions, deadline: float) -> Plan[list[SearchResult]]:
        return together([self.search(query, options, deadline) for query in queries])

    def score(self, query: EncodedQuery, passage_ids: Sequence[str], deadline: float) -> Plan[ById[float]]:
        """Raises: UsageError where there are more than 10,000 ids or the index is of mode streaming."""
        scores: dict[str, float] = {}
        parts = [passage_ids[first : first + MAX_HITS] for first in range(0, len(passage_ids), MAX_HITS)]
        requests = [score_request(self.application.description, self.books, query, part) for part in parts]
        answers = yield tuple(VespaQuery(self.url, request.body([self.name]), deadline) for request in requests)
        for answer in answers:
            hits = hits_of(answer.body["root"], {self.name: self.schema}, 1)
            scores |= {hit.passage_id: hit.stages["maxsim"] for hit in hits}
        return self._by_id(passage_ids, scores, [self._coverage(answer) for answer in answers])

    def get(self, document_ids: Sequence[str], where: Where, deadline: float) -> Plan[ById[tuple[Passage, ...]]]:
        """Raises: VespaRefused where a document has more passages than one answer can hold."""
        filter_ = parse_where(where, self.schema)
        filtered = "" if filter_ is None else f" and {filter_to_yql(filter_)}"
        parts = [document_ids[first : first + DOCUMENTS] for first in range(0, len(document_ids), DOCUMENTS)]
        answers = yield from together([self._of(part, filtered, deadline) for part in parts])
        passages: dict[str, list[Passage]] = {}
        for hit in (hit for hits, _ in answers for hit in hits):
            passage = Passage(hit.passage_id, hit.id, hit.title, hit.text, hit.metadata)
            passages.setdefault(hit.id, []).append(passage)
        ordered = {id_: tuple(sorted(those, key=Passage.place)) for id_, those in passages.items()}
        return self._by_id(document_ids, ordered, [part for _, coverages in answers for part in coverages])

    def _of(self, ids: Sequence[str], filtered: str, deadline: float) -> Plan[tuple[list[Hit], list[VespaCoverage]]]:
        """Passages of the documents; those of each half where all are more than one answer holds."""
        selection = documents_clause(ids) + filtered
        answer = yield from self._stored(stored_request(self.application.settings, selection, MAX_HITS), deadline)
        root = answer.body["root"]
        if root["fields"]["totalCount"] <= MAX_HITS:
            return hits_of(root, {self.name: self.schema}, 1), [self._coverage(answer)]
        if len(ids) == 1:
            raise VespaRefused(f"{self.address}: document {ids[0]!r} has more than {MAX_HITS:,} passages")
        middle = len(ids) // 2
        halves = yield from together([self._of(half, filtered, deadline) for half in (ids[:middle], ids[middle:])])
        return [hit for hits, _ in halves for hit in hits], [part for _, coverages in halves for part in coverages]

    def select(self, where: Where, limit: int, deadline: float) -> Plan[Ids]:
        filter_ = parse_where(where, self.schema)
        selection = "true" if filter_ is None else filter_to_yql(filter_)
        answer = yield from self._stored(stored_request(self.application.settings, selection, limit, STORED), deadline)
        children = answer.body["root"].get("children", [])
        coverage = self._coverage(answer)
        ids = dict.fromkeys(str(hit["fields"]["document_id"]) for hit in children)
        return Ids(ids, coverage.share, coverage.degraded)

    def _stored(self, request: Request, deadline: float) -> Plan[VespaAnswer]:
        (answer,) = yield (VespaQuery(self.url, request.body([self.name]), deadline),)
        return answer

    def _coverage(self, answer: VespaAnswer) -> VespaCoverage:
        return coverage_of(answer.body["root"], self._settings.expected.get(self.name))

    def _by_id(self, ids: Sequence[str], values: Mapping[str, T], coverages: Sequence[VespaCoverage]) -> ById[T]:
        """In the order of the ids, of which some may be missing."""
        share, degraded = joint(coverages)
        return ById({id_: values[id_] for id_ in ids if id_ in values}, share, degraded)

    def vectors(self, passage_ids: Sequence[str], deadline: float) -> Plan[ById[Matrix]]:
        """Raises: UsageError where the index is of layout chunks or of mode streaming."""
        rows: dict[str, Matrix] = {}
        parts = [passage_ids[first : first + VECTORS_AT_ONCE] for first in range(0, len(passage_ids), VECTORS_AT_ONCE)]
        requests = [vectors_request(self.application.settings, part) for part in parts]
        answers = yield tuple(VespaQuery(self.url, request.body([self.name]), deadline) for request in requests)
        for answer in answers:
            root = answer.body["root"]
            hits = hits_of(root, {self.name: self.schema}, 1)
            rows |= {hit.passage_id: D for hit, D in zip(hits, _decoded(self, root), strict=True)}
        return self._by_id(passage_ids, rows, [self._coverage(answer) for answer in answers])

    def noted(self, coverage: VespaCoverage) -> tuple[str, ...]:
        """A note where fewer documents were searched than once before: Vespa does not always count what is missing."""
        searched = coverage.documents
        if searched is None:
            return ()
        most, self._most_searched = self._most_searched, max(self._most_searched, searched)
        if searched >= most or coverage.degraded:
            return ()
        return (f"{searched:,} documents were searched, {most:,} before: documents were deleted, or a node is lost",)

    def close(self) -> None:
        """The exchange has the connections."""


def search_joined(
    indexes: Sequence[VespaIndex], query: EncodedQuery, options: SearchOptions, deadline: float
) -> Plan[list[SearchResult]]:
    """One application's indexes, of one bundle. Those whose requests differ by their names alone are asked in one, and give one
    result."""
    start = time.perf_counter()
    joined: list[_JoinedRequest] = []
    for index in indexes:
        strategy, chosen = index.strategy(query, options)
        request = index.request(query, options, strategy)
        same = next((one for one in joined if one.request == request and options.scored == "engine"), None)
        if same is None:
            joined.append(_JoinedRequest([index], request, strategy, chosen))
        else:
            same.members.append(index)
    sent = tuple(VespaQuery(indexes[0].url, one.request.body([i.name for i in one.members]), deadline) for one in joined)
    built = time.perf_counter() - start
    answers = yield sent
    return [_result(one, query, options, answer, built) for one, answer in zip(joined, answers, strict=True)]


@dataclass
class _JoinedRequest:
    """One request for all of its members. chosen: why this strategy, where nobody named it."""

    members: list[VespaIndex]
    request: Request
    strategy: str
    chosen: str


def _result(
    joined: _JoinedRequest, query: EncodedQuery, options: SearchOptions, answer: VespaAnswer, built: float
) -> SearchResult:
    start = time.perf_counter()
    members, strategy = joined.members, joined.strategy
    root: Mapping[str, Any] = answer.body["root"]
    expected = [members[0]._settings.expected.get(index.name) for index in members]
    coverage = coverage_of(root, sum(n or 0 for n in expected) if any(expected) else None)
    schemas = {index.name: index.schema for index in members}
    hits = hits_of(root, schemas, options.first + 1)
    scoring = 0.0
    if options.scored == "client":
        before = time.perf_counter()
        hits = _scored_here(members[0], root, hits, strategy, query, options)
        scoring = time.perf_counter() - before
    elif options.explain:
        hits = [replace(hit, vectors=D) for hit, D in zip(hits, _carried(members, root, hits), strict=True)]
    matched = root.get("fields", {}).get("totalCount")
    ranked = joined.request.reranked if strategy != "exhaustive" else (matched or 0)
    seconds = {
        "encode": query.encode_s,
        "request": built,
        "vespa": answer.seconds,
        "parse": time.perf_counter() - start - scoring,
    }
    if scoring:
        seconds["maxsim"] = scoring
    timings = {name: 1000 * value for name, value in seconds.items()} | timings_of(answer.body)
    notes = members[0].noted(coverage) if len(members) == 1 else ()
    if coverage.degraded:
        notes += (f"only {coverage.share:.1%} of the documents were searched: {'; '.join(coverage.degraded)}",)
    if answer.sent > 1:
        notes += (f"Vespa was asked {answer.sent} times until it answered",)
    return SearchResult(
        hits=tuple(hits),
        candidates=strategy,
        matched=matched,
        reranked=ranked if matched is None else min(ranked, matched),
        stage="candidates" if options.first_stage and strategy != "exhaustive" else "reranked",
        chosen=joined.chosen,
        coverage=coverage.share,
        searched=coverage.documents,
        degraded=coverage.degraded,
        timings_ms=timings,
        notes=notes,
    )


def _carried(members: Sequence[VespaIndex], root: Mapping[str, Any], hits: Sequence[Hit]) -> list[Matrix | None]:
    """Stored rows of each hit, where the answer has them."""
    by_name = {index.name: index for index in members}
    items = root.get("children", [])
    return [
        _decoded(by_name[hit.index], {"children": [item]})[0] if VECTORS in item.get("fields", {}) else None
        for hit, item in zip(hits, items, strict=True)
    ]


def _decoded(index: VespaIndex, root: Mapping[str, Any]) -> list[Matrix]:
    """Rows `[t, d]` of each hit of an answer that carries vectors."""
    settings = index.application.settings
    codec = CODECS[settings.codec]
    names = (VECTORS, *codec.more_fields(settings))
    values = [{name: item["fields"][name] for name in names} for item in root.get("children", [])]
    return [codec.decode(value, index.books) for value in values]


def _scored_here(
    index: VespaIndex,
    root: Mapping[str, Any],
    hits: Sequence[Hit],
    strategy: str,
    query: EncodedQuery,
    options: SearchOptions,
) -> list[Hit]:
    """The page of the candidates ordered by MaxSim over their decoded vectors, as the codec of the index decodes them."""
    matrices = _decoded(index, root)
    if not matrices:
        return []
    no_rows = np.zeros((0, query.rows.shape[1]), np.float32)
    stored = np.concatenate([no_rows, *(D for D in matrices if len(D))])
    scores = maxsim_many(query.rows, stored, [len(D) for D in matrices]).tolist()
    maxsim = {hit.passage_id: score for hit, score in zip(hits, scores, strict=True)}
    scored = final = {id_: score for id_, score in maxsim.items() if math.isfinite(score)}  # without rows: as in a local index
    if strategy == "hybrid":
        words = [(hit.passage_id, hit.stages["bm25"]) for hit in hits if hit.stages["bm25"] > 0]
        words.sort(key=lambda pair: -pair[1])
        final = fused(scored, words, options.fusion_weights)
    by_id = {hit.passage_id: (hit, D) for hit, D in zip(hits, matrices, strict=True)}
    best = sorted(final, key=lambda id_: (-final[id_], id_))[options.first : options.last]
    page = []
    for rank, id_ in enumerate(best, start=options.first + 1):
        hit, D = by_id[id_]
        rows = query.row_scores(D) if options.explain else ()
        stages = {**hit.stages, "maxsim": maxsim[id_]}
        page.append(replace(hit, rank=rank, score=final[id_], stages=stages, rows=rows, vectors=D if options.explain else None))
    return page
