"""The common core of both clients: the indexes behind some addresses, and every operation as a plan (plans.py)."""

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
ENCODERS = 4  # kept: bundles that an index had before are no longer used


def addresses_of(given: Addresses) -> list[str | Path]:
    """Return one address, or several, as a list.

    Raises:
        UsageError: if it is neither.
    """
    if isinstance(given, (str, os.PathLike)):
        return [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise UsageError(f"an address must be a string, a Path or a list of them, got {type(given).__name__}")
    return list(given)


def _by_words(hit: Hit) -> Hit:
    """Return a hit without MaxSim, scored by BM25."""
    stages = {"bm25": hit.stages.get("bm25", hit.stages.get("candidates", hit.score))}
    return replace(hit, score=stages["bm25"], stages=stages)


class Core:
    """Indexes and operations of both clients, which run the plans.

    Indexes are named, in the order of the addresses; several with the same name have their whole address as name. `default`
    has the names that are searched if no index is named: of each address the named one, or its first. With a bundle and no
    address there is no index, and only `rerank` works.
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
        """Open the indexes.

        Raises:
            ColbertVespaError: as in `Client`.
        """
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
        """Return the indexes at an address, and whether each is a default.

        An application's further indexes with another bundle are left out: they have their own address.
        """
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
        """Return the indexes of a server of ours; UsageError if it serves no such index."""
        server = Server(place.url, self.settings.timeout, transport=transport, clock=self.clock)
        asked = server.facts(place.index or next(iter(server.known), "")).name
        names = [asked, *(name for name in server.known if name != asked)]
        return [(ServerIndex(server, name, own_bundle=bundle), name == asked) for name in names]

    def named(self, names: Names = None, deadline: float | None = None) -> list[SearchIndex]:
        """Return the indexes in their current state.

        Raises:
            UsageError: if one is unknown or named twice.
            ColbertVespaError: as in `SearchIndex.now`.
        """
        if not self.indexes:
            raise UsageError("this client has a bundle but no index, so it can only rerank; give it an address")
        chosen = self.default if names is None else check_names(names)
        for name in chosen:
            if name not in self.indexes:
                raise UsageError(f"index {name!r} is unknown; known: {', '.join(self.indexes)}")
        if not chosen or len(set(chosen)) < len(chosen):
            raise UsageError("name at least one index, and each once")
        until = self.deadline(None) if deadline is None else deadline
        return [self.indexes[name].now(until) for name in chosen]

    @property
    def bundle(self) -> Bundle:
        """Return the bundle of the first default index; without an index the given one."""
        if self.indexes:
            return self.named()[0].bundle
        assert self._own is not None
        return self._own

    @property
    def model(self) -> str:
        """Return the checkpoint of `bundle`, also if a server has it."""
        first = self.named()[0] if self.indexes else None
        return first.model if isinstance(first, ServerIndex) else self.bundle.manifest.source

    def encoder(self, bundle: Bundle) -> Encoder:
        """Return the encoder of a bundle.

        Raises:
            UsageError: if the bundle has no model.
        """
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
        """Add the dense vectors that a search of those indexes needs."""
        needed = {name: dim for index in indexes for name, dim in index.dense_needed(options).items()}
        return with_dense(self._encoded(query, indexes[0]), needed, lambda name: self.dense_encoder(indexes[0].bundle, name))

    def dense_encoder(self, bundle: Bundle, name: str) -> DenseEncoder:
        """Return the encoder of a dense model.

        Raises:
            UsageError: if the bundle has no such dense model, or it has no graph.
        """
        device = self._device
        if device == AUTO:  # on the token model's device
            device = self.encoder(bundle).device if bundle.encodes else CPU
        return self._kept(self._dense_encoders, (bundle.sha256, name), lambda: DenseEncoder(bundle, name, device=device))

    def cross_encoder(self, given: CrossEncoder | str | Path) -> CrossEncoder:
        """Return the cross-encoder that is in that folder now.

        Raises:
            BundleError: if there is none, or it is damaged.
        """
        if isinstance(given, CrossEncoder):
            return given
        folder = CrossEncoderFolder.open(given, verify=False)
        device = CPU if self._device == AUTO else self._device
        return self._kept(self._cross_encoders, folder.sha256, lambda: CrossEncoder(given, device=device))

    def _last_stage(self, options: SearchOptions) -> LastStage | None:
        """Return the last stage if it runs here, not at a server."""
        return None if options.rerank_with is None else LastStage(self.cross_encoder(options.rerank_with), options)

    def deadline(self, timeout: float | None) -> float:
        """Return the deadline of a call.

        Raises:
            UsageError: if the timeout is not above 0.
        """
        return self.clock() + (self.settings.timeout if timeout is None else check_seconds("timeout", timeout))

    def search(self, query: Query, options: SearchOptions) -> Plan[SearchResult]:
        """Return the best k passages for a text or ready-made rows `[q, d]`.

        Args:
            query: a text, rows `[q, d]` or QueryVectors.
            options: the fields of SearchOptions by keyword, k also by position.

        Returns:
            the hits, best first, with details of the search.

        Raises:
            UsageError: if an argument is out of range.
            FilterError: if the filter is not valid.
            IncompleteAnswer: if the settings require full answers and this is none.
            LocalIndexError: if a local index is damaged.
            VespaUnreachable: if there is no answer.
            VespaTimeout: if there is no answer before the deadline.
            VespaBusy: if Vespa stays overloaded.
            VespaRefused: if Vespa rejects the query.
        """
        if isinstance(query, (list, tuple)):
            raise UsageError("search takes one query; use search_many for a list of queries")
        return (yield from self.search_many([query], options))[0]

    def search_many(self, queries: Sequence[Query], options: SearchOptions) -> Plan[list[SearchResult]]:
        """Run `search` for each of `queries` side by side.

        Args:
            queries: the queries.
            options: as in `search`.

        Returns:
            one result for each query, in order.

        Raises:
            ColbertVespaError: as in `search`.
        """
        return (yield from self.search_in(self.named(options.index, self.deadline(options.timeout)), queries, options))

    def search_in(
        self, indexes: Sequence[SearchIndex], queries: Sequence[Query | EncodedQuery], options: SearchOptions
    ) -> Plan[list[SearchResult]]:
        """Run `search_many` in indexes from `named`, so that several searches see one version.

        Encoded queries must belong to the indexes' bundle.
        """
        start, deadline = self.clock(), self.deadline(options.timeout)
        server, last = only_server(indexes), self._last_stage(options)
        if last is None and server is None and options.rerank_with_top is not None:
            raise UsageError("rerank_with_top needs rerank_with, the folder of a cross-encoder; only servers have their own")
        asked = options if last is None else last.before
        if server is not None:
            indexes = [server]
            encoded_queries = [server.asked(query) for query in given_list(queries, "queries")]
        else:
            check_comparable(indexes)
            asked = indexes[0].settled(asked)  # with several indexes the first one's, so that scores can be compared
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
        """Search one index; a text without rows is ranked by its words, which find the candidates bm25."""
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
        """Add explanations; a server explains by itself."""
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
        """Raise IncompleteAnswer if the settings require a full answer, and this is none."""
        return answer.check_full() if self.settings.require_full else answer

    def _parts(
        self, indexes: Sequence[SearchIndex], encoded: EncodedQuery, options: SearchOptions, deadline: float
    ) -> list[Plan[list[SearchResult]]]:
        """Return a plan for each application with its indexes, and for each local index."""
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
        """Return MaxSim of the query with stored passages, by passage id (`hit.passage_id`).

        Unknown ids are left out. If the answer is not `full`, others may be missing too.

        Args:
            query: a text, rows `[q, d]` or QueryVectors.
            ids: passage ids.
            index: name of the index; None for the only one.
            timeout: seconds; None for the client's.

        Raises:
            ColbertVespaError: as in `search`.
        """
        deadline, wanted = self.deadline(timeout), check_ids(ids)
        only = self._only(index, "score works on", deadline)
        encoded = self._encoded(query, only)
        if not len(encoded.rows) and not isinstance(only, ServerIndex):
            raise UsageError(f"a text cannot be scored here: {NO_MODEL}")
        return self._checked((yield from only.score(encoded, wanted, deadline))) if wanted else ById()

    def get(
        self, ids: Sequence[str], *, where: Where = None, index: Names = None, timeout: float | None = None
    ) -> Plan[ById[tuple[Passage, ...]]]:
        """Return the stored passages of documents that the filter selects, in order, by document id.

        Unknown ids are left out. If the answer is not `full`, passages and documents may be missing.

        Args:
            ids: document ids.
            where: a filter.
            index: name of the index; None for the only one.
            timeout: seconds; None for the client's.

        Raises:
            ColbertVespaError: as in `search`.
        """
        deadline, wanted = self.deadline(timeout), check_ids(ids)
        only = self._only(index, "get works on", deadline)
        if not wanted:
            parse_where(where, only.schema)
            return ById()
        passages = self._checked((yield from only.get(wanted, where, deadline)))
        return ById({id_: passages[id_] for id_ in wanted if id_ in passages}, passages.coverage, passages.degraded)

    def select(
        self, where: Where = None, limit: int = MAX_HITS, *, index: Names = None, timeout: float | None = None
    ) -> Plan[Ids]:
        """Return the ids of the documents that a filter selects, in no order; of all without a filter.

        If the answer is not `full`, ids may be missing.

        Args:
            where: a filter.
            limit: most passages to look at, up to 10,000.
            index: name of the index; None for the only one.
            timeout: seconds; None for the client's.

        Raises:
            ColbertVespaError: as in `search`.
        """
        deadline, most = self.deadline(timeout), check_count("limit", limit)
        return self._checked((yield from self._only(index, "select works on", deadline).select(where, most, deadline)))

    def _only(self, names: Names, what: str, deadline: float) -> SearchIndex:
        """Return the only index; UsageError if several are named."""
        indexes = self.named(names, deadline)
        if len(indexes) != 1:
            raise UsageError(f"{what} one index; choose one of {', '.join(index.name for index in indexes)}")
        return indexes[0]

    def vectors(self, ids: Sequence[str], *, index: Names = None, timeout: float | None = None) -> Plan[ById[Matrix]]:
        """Return stored unit rows `[t, d]` of passages by passage id, as the codec decodes them.

        Unknown ids are left out. If the answer is not `full`, others may be missing too.

        Args:
            ids: passage ids.
            index: name of the index; None for the only one.
            timeout: seconds; None for the client's.

        Raises:
            UsageError: if the index cannot return them (layout chunks, mode streaming).
            ColbertVespaError: as in `search`.
        """
        deadline, wanted = self.deadline(timeout), check_ids(ids)
        only = self._only(index, "vectors works on", deadline)
        return self._checked((yield from only.vectors(wanted, deadline))) if wanted else ById()

    def rerank(
        self, query: Query, documents: Sequence[str | Document], k: int | None = None, *, explain: bool = False
    ) -> Plan[tuple[Hit, ...]]:
        """Rank texts or documents by MaxSim; they need not be in the index.

        They are encoded here, or by the server that has the model. Those without a word come last.

        Args:
            query: a text, rows `[q, d]` or QueryVectors.
            documents: texts, whose ids are their places, or documents.
            k: how many to return; None for all.
            explain: add explanations.

        Raises:
            UsageError: if the query is blank or has another shape, k is below 1, or documents are not texts or Documents.
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
        """Close the indexes."""
        for index in self.indexes.values():
            index.close()
