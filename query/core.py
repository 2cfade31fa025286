"""What both clients are: the indexes behind some addresses, and every operation as a plan (plans.py)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypeVar

import httpx

from late_interaction.addresses import VespaUrl, locate
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.cross_encoder import CrossEncoder, CrossEncoderFolder
from late_interaction.dense import DenseEncoder
from late_interaction.devices import AUTO, CPU, Device, check_device
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.filters import parse_where
from late_interaction.text import given_list
from query.backend import NO_MODEL, SearchIndex, Where, encode_query, with_dense
from query.explain import explained
from query.last_stage import LastStage
from query.merging import check_comparable, merged
from query.options import (
    ClientSettings,
    Names,
    SearchOptions,
    check_count,
    check_documents,
    check_flag,
    check_ids,
    check_names,
    check_seconds,
)
from query.plans import Plan, together
from query.reranking import reranked
from query.server import Server, ServerIndex, only_server
from query.types import ById, Covered, EncodedQuery, Hit, Ids, Query, SearchResult
from query.vespa import VespaIndex, search_joined
from vespa_app.running import Application
from vespa_app.running.description import read_description
from vespa_app.running.http import ServerAnswered
from vespa_app.settings.application_settings import MAX_HITS

__all__ = ["Addresses", "Core", "addresses_of"]

Addresses: TypeAlias = str | Path | Sequence[str | Path]
C = TypeVar("C", bound=Covered)
K = TypeVar("K")
E = TypeVar("E", Encoder, DenseEncoder, CrossEncoder)
ENCODERS = 4  # kept: of bundles that an index had before, none is asked any more


def addresses_of(given: Addresses) -> list[str | Path]:
    """One address, or several. Raises: UsageError on what is neither."""
    if isinstance(given, (str, os.PathLike)):
        return [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise UsageError(f"an address is a text, a Path or a list of them, got {type(given).__name__}")
    return list(given)


def _by_words(hit: Hit) -> Hit:
    """A hit that has no MaxSim, scored by BM25."""
    stages = {"bm25": hit.stages.get("bm25", hit.stages.get("candidates", hit.score))}
    return replace(hit, score=stages["bm25"], stages=stages)


class Core:
    """Its operations are those of both clients, which run the plans.

    Indexes by name, in the order of the addresses; several of one name have their whole address as name. `default` are the
    names that are asked where no index is named: of each address the one that it names, or its first. With a bundle and no
    address there is no index, and `rerank` is all that it can do.
    """

    def __init__(
        self,
        addresses: Addresses,
        bundle: Bundle | str | Path | None = None,
        *,
        settings: ClientSettings | None = None,
        precision: str | None = None,
        device: str | Device = AUTO,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises: LocalIndexError, BundleError, VespaError, UsageError, MissingDependency."""
        self.settings = settings or ClientSettings()
        self.clock = clock
        self._precision = precision
        self._device = Device.of(device)
        check_device(self._device)
        self._encoders: dict[str, Encoder] = {}
        self._dense_encoders: dict[tuple[str, str], DenseEncoder] = {}
        self._cross_encoders: dict[str, CrossEncoder] = {}
        self._lock = threading.Lock()
        given = addresses_of(addresses)
        opened_bundle = Bundle.open(bundle) if isinstance(bundle, (str, Path)) else bundle
        if (not given and opened_bundle is None) or len({str(address) for address in given}) < len(given):
            raise UsageError("give at least one index, and each once")
        self._own = opened_bundle
        opened: list[tuple[SearchIndex, bool]] = []
        for address in given:
            opened += self._opened(address, opened_bundle, transport)
        names = [index.name for index, _ in opened]
        self.indexes: dict[str, SearchIndex] = {}
        self.default: list[str] = []
        for index, asked in opened:
            name = index.name if names.count(index.name) == 1 else index.address
            self.indexes[name] = index
            if asked:
                self.default.append(name)

    def _opened(
        self, address: str | Path, bundle: Bundle | None, transport: httpx.BaseTransport | None
    ) -> list[tuple[SearchIndex, bool]]:
        """The indexes at an address, and whether each is asked by default. Of an application's further indexes those of another
        bundle are left out: they have an address of their own."""
        place = locate(address)
        if isinstance(place, Path):
            from query.local import LocalSearch

            return [(LocalSearch(place, self.clock, self.settings.version), True)]
        try:
            description = read_description(place.url, timeout=self.settings.timeout, transport=transport)
        except ServerAnswered:
            return self._served(place, bundle, transport)
        asked = description.index(place.index or description.settings.schema)
        application = Application(place.url, asked)
        known = application.choose_bundle(bundle)

        def follow(index: VespaIndex, patience: float) -> tuple[Application, Bundle]:
            newest = read_description(place.url, timeout=patience, transport=transport).index(index.name)
            if newest == index.application.description:
                return index.application, index.bundle
            moved = Application(application.url, newest)
            return moved, moved.choose_bundle(bundle)

        def opened(one: Application) -> VespaIndex:
            return VespaIndex(one, known, self.settings, follow=follow, clock=self.clock)

        others = [other for other in description.all if other.settings.schema != asked.settings.schema]
        further = [Application(application.url, other) for other in others if other.bundle_sha256 == known.sha256]
        return [(opened(application), True), *((opened(other), False) for other in further)]

    def _served(
        self, place: VespaUrl, bundle: Bundle | None, transport: httpx.BaseTransport | None
    ) -> list[tuple[SearchIndex, bool]]:
        """As _opened, of a server of ours. Raises: UsageError where it serves no such index."""
        server = Server(place.url, self.settings.timeout, transport=transport, clock=self.clock)
        asked = server.facts(place.index or next(iter(server.known), "")).name
        names = [asked, *(name for name in server.known if name != asked)]
        return [(ServerIndex(server, name, own_bundle=bundle), name == asked) for name in names]

    def named(self, names: Names = None, deadline: float | None = None) -> list[SearchIndex]:
        """The indexes as they are now. Raises: UsageError where one is unknown or named twice; as SearchIndex.now."""
        if not self.indexes:
            raise UsageError("this client has a bundle and no index, so that it can only rerank: give it an address")
        chosen = self.default if names is None else check_names(names)
        for name in chosen:
            if name not in self.indexes:
                raise UsageError(f"index {name!r} unknown; there are: {', '.join(self.indexes)}")
        if not chosen or len(set(chosen)) < len(chosen):
            raise UsageError("name at least one index, and each once")
        until = self.deadline(None) if deadline is None else deadline
        return [self.indexes[name].now(until) for name in chosen]

    @property
    def bundle(self) -> Bundle:
        """Of the first index that is asked by default; without an index the one that was given."""
        if self.indexes:
            return self.named()[0].bundle
        assert self._own is not None
        return self._own

    @property
    def model(self) -> str:
        """The checkpoint of `bundle`, also where a server has it."""
        first = self.named()[0] if self.indexes else None
        return first.model if isinstance(first, ServerIndex) else self.bundle.manifest.source

    def encoder(self, bundle: Bundle) -> Encoder:
        """Raises: UsageError where the bundle has no model."""
        if not bundle.encodes:
            raise UsageError(f"a text cannot be encoded here: {NO_MODEL}")
        return self._kept(
            self._encoders, bundle.sha256, lambda: Encoder(bundle, precision=self._precision, device=self._device)
        )

    def _kept(self, encoders: dict[K, E], key: K, make: Callable[[], E]) -> E:
        with self._lock:
            if key not in encoders:
                for oldest in list(encoders)[: 1 - ENCODERS]:
                    del encoders[oldest]
                encoders[key] = make()
            return encoders[key]

    def _encoded(self, query: object, index: SearchIndex) -> EncodedQuery:
        if isinstance(query, EncodedQuery):
            return query
        if isinstance(index, ServerIndex):
            return index.asked(query)
        bundle = index.bundle
        return encode_query(query, bundle.manifest.dim, lambda: self.encoder(bundle), encodes=bundle.encodes)

    def _encoded_for(self, query: object, indexes: Sequence[SearchIndex], options: SearchOptions) -> EncodedQuery:
        """With the dense vectors that a search of those indexes needs. Raises: UsageError."""
        needed = {name: dim for index in indexes for name, dim in index.dense_needed(options).items()}
        return with_dense(self._encoded(query, indexes[0]), needed, lambda name: self.dense_encoder(indexes[0].bundle, name))

    def dense_encoder(self, bundle: Bundle, name: str) -> DenseEncoder:
        """Raises: UsageError where the bundle has no such dense model, or it has no graph."""
        device = self._device
        if device == AUTO:  # where the token model runs
            device = self.encoder(bundle).device if bundle.encodes else CPU
        return self._kept(self._dense_encoders, (bundle.sha256, name), lambda: DenseEncoder(bundle, name, device=device))

    def cross_encoder(self, given: CrossEncoder | str | Path) -> CrossEncoder:
        """The one that is in that folder now. Raises: BundleError."""
        if isinstance(given, CrossEncoder):
            return given
        folder = CrossEncoderFolder.open(given, verify=False)
        device = CPU if self._device == AUTO else self._device
        return self._kept(self._cross_encoders, folder.sha256, lambda: CrossEncoder(given, device=device))

    def _last_stage(self, options: SearchOptions) -> LastStage | None:
        """Where it is here, not at a server. Raises: BundleError."""
        return None if options.rerank_with is None else LastStage(self.cross_encoder(options.rerank_with), options)

    def deadline(self, timeout: float | None) -> float:
        """Raises: UsageError on a timeout that is not above 0."""
        return self.clock() + (self.settings.timeout if timeout is None else check_seconds("timeout", timeout))

    def search(self, query: Query, options: SearchOptions) -> Plan[SearchResult]:
        """The best k passages for a text or ready rows `[q, d]`. Arguments: the fields of SearchOptions, k also by position.

        Raises: UsageError on an argument out of range, FilterError, IncompleteAnswer where the settings require full answers,
        LocalIndexError, VespaUnreachable, VespaTimeout, VespaBusy, VespaRefused.
        """
        if isinstance(query, (list, tuple)):
            raise UsageError("search takes one query: give a list of queries to search_many")
        return (yield from self.search_many([query], options))[0]

    def search_many(self, queries: Sequence[Query], options: SearchOptions) -> Plan[list[SearchResult]]:
        """As `search` for each of them, side by side: one result for each, in order."""
        return (yield from self.search_in(self.named(options.index, self.deadline(options.timeout)), queries, options))

    def search_in(
        self, indexes: Sequence[SearchIndex], queries: Sequence[Query | EncodedQuery], options: SearchOptions
    ) -> Plan[list[SearchResult]]:
        """As search_many. indexes: what `named` gave, so that several searches see one version; queries that are encoded
        already are of their bundle."""
        start, deadline = self.clock(), self.deadline(options.timeout)
        server, last = only_server(indexes), self._last_stage(options)
        if last is None and server is None and options.rerank_with_top is not None:
            raise UsageError("rerank_with_top needs rerank_with, the folder of a cross-encoder: only servers have their own")
        asked = options if last is None else last.before
        if server is not None:
            indexes = [server]
            encoded_queries = [server.asked(query) for query in given_list(queries, "queries")]
        else:
            check_comparable(indexes)
            asked = indexes[0].settled(asked)  # of several the first one's, or their scores could not be compared
            encoded_queries = [self._encoded_for(query, indexes, asked) for query in given_list(queries, "queries")]
        if last is not None:
            last.check(encoded_queries)
        results = yield from self._found(indexes, encoded_queries, asked, deadline)
        pairs = list(zip(encoded_queries, results, strict=True))
        if last is not None:
            pairs = [(query, last.ordered(query, found, deadline - start, deadline, self.clock)) for query, found in pairs]
        return [self._finished(indexes[0], *pair, options) for pair in pairs]

    def _found(
        self, indexes: Sequence[SearchIndex], queries: Sequence[EncodedQuery], options: SearchOptions, deadline: float
    ) -> Plan[list[SearchResult]]:
        served = isinstance(indexes[0], ServerIndex)
        if len(indexes) == 1 and (served or all(len(encoded.rows) for encoded in queries)):
            return (yield from indexes[0].search_many(queries, options, deadline))
        return (yield from together([self._one(indexes, encoded, options, deadline) for encoded in queries]))

    def _one(
        self, indexes: Sequence[SearchIndex], encoded: EncodedQuery, options: SearchOptions, deadline: float
    ) -> Plan[SearchResult]:
        """A text without rows is ranked by its words, by which candidates bm25 are found."""
        words = not len(encoded.rows) and options.candidates == "bm25"
        how = options.by_candidates() if words else options
        if len(indexes) == 1:
            result = yield from indexes[0].search(encoded, how, deadline)
        else:
            result = yield from self._merged(indexes, encoded, how, deadline)
        return replace(result, hits=tuple(map(_by_words, result.hits)), reranked=0) if words else result

    def _merged(
        self, indexes: Sequence[SearchIndex], encoded: EncodedQuery, options: SearchOptions, deadline: float
    ) -> Plan[SearchResult]:
        whole = replace(options, k=options.last, offset=None if options.offset is None else 0)
        parts = yield from together(self._parts(indexes, encoded, whole, deadline))
        return merged([result for results in parts for result in results], options)

    def _finished(
        self, index: SearchIndex, encoded: EncodedQuery, result: SearchResult, options: SearchOptions
    ) -> SearchResult:
        """A server explains by itself."""
        explains = options.explain and not isinstance(index, ServerIndex)
        if explains and encoded.text and len(encoded.rows) and not encoded.ready:
            start = time.perf_counter()
            hits = explained(self.encoder(index.bundle), encoded, result.hits)
            timings = {**result.timings_ms, "explain": 1000 * (time.perf_counter() - start)}
            result = replace(result, hits=hits, timings_ms=timings)
        elif options.explain:
            result = replace(result, hits=tuple(replace(hit, vectors=None) for hit in result.hits))
        return self._checked(result)

    def _checked(self, answer: C) -> C:
        """Raises: IncompleteAnswer where the settings require a full answer, and this is none."""
        return answer.check_full() if self.settings.require_full else answer

    def _parts(
        self, indexes: Sequence[SearchIndex], encoded: EncodedQuery, options: SearchOptions, deadline: float
    ) -> list[Plan[list[SearchResult]]]:
        """A plan for each application with its indexes, and for each local index."""
        applications: dict[str, list[VespaIndex]] = {}
        plans: list[Plan[list[SearchResult]]] = []
        for index in indexes:
            if isinstance(index, VespaIndex):
                applications.setdefault(index.url, []).append(index)
            else:
                plans.append(together([index.search(encoded, options, deadline)]))
        return [*(search_joined(those, encoded, options, deadline) for those in applications.values()), *plans]

    def score(
        self, query: Query, ids: Sequence[str], *, index: Names = None, timeout: float | None = None
    ) -> Plan[ById[float]]:
        """MaxSim of the query with stored passages, by passage id (`hit.passage_id`); unknown ids are left out. Where the
        answer is not `full`, so may be others.

        Raises: as search.
        """
        deadline, wanted = self.deadline(timeout), check_ids(ids)
        only = self._only(index, "score is", deadline)
        encoded = self._encoded(query, only)
        if not len(encoded.rows) and not isinstance(only, ServerIndex):
            raise UsageError(f"a text cannot be scored here: {NO_MODEL}")
        return self._checked((yield from only.score(encoded, wanted, deadline))) if wanted else ById()

    def get(
        self, ids: Sequence[str], *, where: Where = None, index: Names = None, timeout: float | None = None
    ) -> Plan[ById[tuple[Passage, ...]]]:
        """The stored passages of those documents, in their order, by document id; unknown ids are left out, and what the filter
        does not select. Where the answer is not `full`, passages and documents may be missing.

        Raises: as search.
        """
        deadline, wanted = self.deadline(timeout), check_ids(ids)
        only = self._only(index, "get is", deadline)
        if not wanted:
            parse_where(where, only.schema)
            return ById()
        passages = self._checked((yield from only.get(wanted, where, deadline)))
        return ById({id_: passages[id_] for id_ in wanted if id_ in passages}, passages.coverage, passages.degraded)

    def select(
        self, where: Where = None, limit: int = MAX_HITS, *, index: Names = None, timeout: float | None = None
    ) -> Plan[Ids]:
        """Ids of the documents that a filter selects, in no order; all without one. limit: passages looked at, 10,000 at most.
        Where the answer is not `full`, ids may be missing.

        Raises: as get.
        """
        deadline, most = self.deadline(timeout), check_count("limit", limit)
        return self._checked((yield from self._only(index, "select is", deadline).select(where, most, deadline)))

    def _only(self, names: Names, what: str, deadline: float) -> SearchIndex:
        """Raises: UsageError where several indexes are named."""
        indexes = self.named(names, deadline)
        if len(indexes) != 1:
            raise UsageError(f"{what} of one index: name one of {', '.join(index.name for index in indexes)}")
        return indexes[0]

    def vectors(self, ids: Sequence[str], *, index: Names = None, timeout: float | None = None) -> Plan[ById[Matrix]]:
        """Stored unit rows `[t, d]` of passages by passage id, as the codec decodes them; unknown ids are left out.
        Where the answer is not `full`, so may be others.

        Raises: UsageError where the index cannot give them (layout chunks, mode streaming); as search.
        """
        deadline, wanted = self.deadline(timeout), check_ids(ids)
        only = self._only(index, "vectors are", deadline)
        return self._checked((yield from only.vectors(wanted, deadline))) if wanted else ById()

    def rerank(
        self, query: Query, documents: Sequence[str | Document], k: int | None = None, *, explain: bool = False
    ) -> Plan[tuple[Hit, ...]]:
        """Texts or documents that need not be in the index, encoded here or by the server that has the model, by MaxSim; those
        without a word come last. The id of a text is its place.

        Raises: UsageError on a query that is blank or of another shape, a k below 1, or what is no list of texts or documents.
        """
        most, explains = None if k is None else check_count("k", k, most=None), check_flag("explain", explain)
        checked = check_documents(documents)
        deadline = self.deadline(None)
        first = self.named(None, deadline)[0] if self.indexes else None
        if isinstance(first, ServerIndex):
            return (yield from first.rerank(first.asked(query), checked, most, explains, deadline))
        bundle = self.bundle
        return reranked(bundle, lambda: self.encoder(bundle), query, checked, most, explains)

    def close(self) -> None:
        for index in self.indexes.values():
            index.close()
