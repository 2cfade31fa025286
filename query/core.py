"""What both clients are: the indexes behind some addresses, and every operation as a plan (steps.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import httpx

from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.text import checked_ids
from query.backend import Index, Where, encoded
from query.explain import explained
from query.options import ClientSettings, SearchOptions, check_count
from query.reranking import reranked
from query.several import check_comparable, merged
from query.steps import Plan, together
from query.types import Hit, Matrix, Query, Question, SearchResult
from query.vespa import VespaIndex, search_joined
from vespa_app.addresses import is_url
from vespa_app.application import Application
from vespa_app.description import read_description

__all__ = ["Addresses", "Core", "Names"]

Addresses: TypeAlias = str | Path | Sequence[str | Path]
Names: TypeAlias = str | Sequence[str] | None


class Core:
    """Indexes by name, in the order of the addresses; several of one name have their whole address as name. `default` are the
    names that are asked where no index is named: of each address the one that it names, or its first. With a bundle and no
    address there is no index, and `rerank` is all that it can do."""

    def __init__(
        self,
        addresses: Addresses,
        bundle: Bundle | str | Path | None = None,
        *,
        settings: ClientSettings | None = None,
        precision: str | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises: LocalIndexError, BundleError, VespaError, UsageError."""
        self.settings = settings or ClientSettings()
        self.clock = clock
        self._precision = precision
        self._encoders: dict[str, Encoder] = {}
        self._lock = threading.Lock()
        given = [addresses] if isinstance(addresses, (str, Path)) else list(addresses)
        own = Bundle.open(bundle) if isinstance(bundle, (str, Path)) else bundle
        if (not given and own is None) or len({str(address) for address in given}) < len(given):
            raise UsageError("give at least one index, and each once")
        self._own = own
        found: list[tuple[Index, bool]] = []
        for address in given:
            found += self._opened(str(address), own, transport)
        names = [index.name for index, _ in found]
        self.indexes: dict[str, Index] = {}
        self.default: list[str] = []
        for index, asked in found:
            name = index.name if names.count(index.name) == 1 else index.address
            self.indexes[name] = index
            if asked:
                self.default.append(name)

    def _opened(self, address: str, bundle: Bundle | None, transport: httpx.BaseTransport | None) -> list[tuple[Index, bool]]:
        """The indexes at an address, and whether each is asked by default. Of an application's further indexes those of another
        bundle are left out: they have an address of their own."""
        if not is_url(address):
            from query.local import LocalSearch

            return [(LocalSearch(Path(address), self.clock, self.settings.version), True)]
        url, _, name = address.partition("#")
        description = read_description(url, timeout=self.settings.timeout, transport=transport)
        asked = description.index(name or description.settings.schema)
        application = Application(url.rstrip("/"), asked)
        own = application.choose_bundle(bundle)
        others = [other for other in description.all if other.settings.schema != asked.settings.schema]
        beside = [Application(application.url, other) for other in others if other.bundle_sha256 == own.sha256]
        found = [(VespaIndex(application, own, self.settings), True)]
        return [*found, *((VespaIndex(other, own, self.settings), False) for other in beside)]

    def named(self, names: Names) -> list[Index]:
        """Raises: UsageError where an index is unknown or named twice."""
        if not self.indexes:
            raise UsageError("this client has a bundle and no index, so that it can only rerank: give it an address")
        chosen = self.default if names is None else [names] if isinstance(names, str) else list(names)
        for name in chosen:
            if name not in self.indexes:
                raise UsageError(f"index {name!r} unknown; there are: {', '.join(self.indexes)}")
        if not chosen or len(set(chosen)) < len(chosen):
            raise UsageError("name at least one index, and each once")
        return [self.indexes[name] for name in chosen]

    @property
    def bundle(self) -> Bundle:
        """Of the first index that is asked by default; without an index the one that was given."""
        if self.indexes:
            return self.indexes[self.default[0]].bundle
        assert self._own is not None
        return self._own

    def encoder(self, bundle: Bundle) -> Encoder:
        with self._lock:
            if bundle.sha256 not in self._encoders:
                self._encoders[bundle.sha256] = Encoder(bundle, precision=self._precision)
            return self._encoders[bundle.sha256]

    def _encoded(self, query: Query, index: Index) -> Question:
        return encoded(query, index.bundle.manifest.dim, lambda: self.encoder(index.bundle))

    def deadline(self, timeout: float | None) -> float:
        return self.clock() + (self.settings.timeout if timeout is None else timeout)

    def search(
        self, queries: Sequence[Query], names: Names, options: SearchOptions, timeout: float | None
    ) -> Plan[list[SearchResult]]:
        """One result for each query, in order. Raises: as Client.search."""
        indexes = self.named(names)
        check_comparable(indexes)
        deadline = self.deadline(timeout)
        questions = [self._encoded(query, indexes[0]) for query in queries]
        return (yield from together([self._one(indexes, question, options, deadline) for question in questions]))

    def _one(self, indexes: Sequence[Index], question: Question, options: SearchOptions, deadline: float) -> Plan[SearchResult]:
        if len(indexes) == 1:
            result = yield from indexes[0].search(question, options, deadline)
        else:
            whole = replace(options, k=options.last, offset=None)
            parts = yield from together(self._parts(indexes, question, whole, deadline))
            result = merged([result for results in parts for result in results], options)
        if options.explain and question.text:
            start = time.perf_counter()
            hits = explained(self.encoder(indexes[0].bundle), question.text, result.hits)
            timings = {**result.timings_ms, "explain": 1000 * (time.perf_counter() - start)}
            result = replace(result, hits=hits, timings_ms=timings)
        return result.check_full() if self.settings.require_full else result

    def _parts(
        self, indexes: Sequence[Index], question: Question, options: SearchOptions, deadline: float
    ) -> list[Plan[list[SearchResult]]]:
        """A plan for each application with its indexes, and for each local index."""
        applications: dict[str, list[VespaIndex]] = {}
        plans: list[Plan[list[SearchResult]]] = []
        for index in indexes:
            if isinstance(index, VespaIndex):
                applications.setdefault(index.url, []).append(index)
            else:
                plans.append(together([index.search(question, options, deadline)]))
        return [*(search_joined(own, question, options, deadline) for own in applications.values()), *plans]

    def score(self, query: Query, ids: Sequence[str], names: Names, timeout: float | None) -> Plan[Mapping[str, float]]:
        """Raises: as Client.score."""
        index = self._only(names, "score is")
        wanted = list(dict.fromkeys(checked_ids(ids)))
        deadline = self.deadline(timeout)
        question = self._encoded(query, index)
        if not wanted:
            return {}
        return (yield from index.score(question, wanted, deadline))

    def get(
        self, ids: Sequence[str], where: Where, names: Names, timeout: float | None
    ) -> Plan[dict[str, tuple[Passage, ...]]]:
        """Raises: as Client.get."""
        index, wanted = self._only(names, "get is"), list(dict.fromkeys(checked_ids(ids)))
        found = (yield from index.get(wanted, where, self.deadline(timeout))) if wanted else {}
        return {id_: found[id_] for id_ in wanted if id_ in found}

    def select(self, where: Where, limit: int, names: Names, timeout: float | None) -> Plan[tuple[str, ...]]:
        """Raises: as Client.select."""
        check_count("limit", limit)
        return (yield from self._only(names, "select is").select(where, limit, self.deadline(timeout)))

    def _only(self, names: Names, what: str) -> Index:
        """Raises: UsageError where several indexes are named."""
        indexes = self.named(names)
        if len(indexes) != 1:
            raise UsageError(f"{what} of one index: name one of {', '.join(index.name for index in indexes)}")
        return indexes[0]

    def vectors(self, ids: Sequence[str], names: Names, timeout: float | None) -> Plan[Mapping[str, Matrix]]:
        """Raises: as Client.vectors."""
        index, wanted = self._only(names, "vectors are"), list(dict.fromkeys(checked_ids(ids)))
        return (yield from index.vectors(wanted, self.deadline(timeout))) if wanted else {}

    def rerank(self, query: Query, documents: Sequence[str | Document], k: int | None, explain: bool) -> tuple[Hit, ...]:
        """Raises: as Client.rerank."""
        return reranked(self.encoder(self.bundle), query, documents, k, explain)

    def close(self) -> None:
        for index in self.indexes.values():
            index.close()
