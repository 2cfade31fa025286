"""An index behind our server (`colbert-vespa serve`), over HTTP. Texts are encoded there, so no model is needed here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec
import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage, passage_text
from late_interaction.errors import LocalIndexError, UsageError, VespaBusy, VespaRefused, VespaUnreachable
from late_interaction.metadata import MetadataSchema
from late_interaction.ready_rows import packed_array
from query.backend import SearchIndex, Where, check_query, ready_query
from query.options import SearchOptions
from query.plans import Plan, ServerQuery, VespaAnswer, together
from query.server_answer import (
    SERVER,
    ServerAnswers,
    checked_server_answer,
    converted,
    hits_of_server,
    matrix_of,
    passages_of_server,
    result_of_server,
)
from query.types import ById, EncodedQuery, Hit, Ids, QueryVectors, SearchResult
from vespa_app.running.credentials import key_header
from vespa_app.running.http import connect, mapped_errors, parse_address

__all__ = ["Server", "ServerIndex", "only_server"]

T = TypeVar("T")
TOGETHER = 100  # queries, texts or ids of one request; a server accepts 256 by default
LISTED_S = 5.0  # seconds after which the list of served indexes is read again
LEAST_S = 0.001
BY_OTHERS = ("index", "timeout", "rerank_with")  # options that are sent otherwise, or do not concern the server


class _ServedFacts(msgspec.Struct):
    """An index as the server lists it. error: why it cannot be read at the moment."""

    name: str
    backend: str
    candidates: list[str]
    fields: dict[str, str]
    model: str
    dim: int
    error: str = ""


class Server:
    """The indexes served at a URL. Threads may share one."""

    def __init__(
        self,
        url: str,
        timeout: float,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the list of indexes."""
        self.url = url
        self._transport, self._clock = transport, clock
        self._listing = threading.Lock()
        self.known = self._listed(timeout)
        self._at = clock()

    def refresh(self, deadline: float) -> None:
        """Read the list again. If that fails at the moment, the query itself reports why."""
        with self._listing:
            if self._clock() - self._at < LISTED_S:
                return
            try:
                self.known = self._listed(max(LEAST_S, min(LISTED_S, deadline - self._clock())))
            except (VespaUnreachable, VespaBusy):
                return
            self._at = self._clock()

    def facts(self, name: str) -> _ServedFacts:
        """Return the facts of an index.

        Raises:
            UsageError: if it is not, or no longer, served.
        """
        if name not in self.known:
            raise UsageError(
                f"index {name!r} is unknown at {self.url}; it serves: {', '.join(self.known) or 'none for this key'}"
            )
        return self.known[name]

    def _listed(self, timeout: float) -> dict[str, _ServedFacts]:
        headers = key_header(parse_address(self.url))
        with connect(self.url, timeout=timeout, transport=self._transport) as client, mapped_errors(self.url, SERVER):
            response = client.get("/v1/indexes", headers=headers)
        body = checked_server_answer(response, self.url)
        return {one.name: one for one in converted(body.get("indexes"), list[_ServedFacts], self.url)}


@dataclass(frozen=True, eq=False)
class ServerIndex:
    """One index of a server.

    Attributes:
        server: the server.
        name: its name.
        names: all indexes that are searched together with it.
        own_bundle: the bundle given to the client.
    """

    server: Server
    name: str
    names: tuple[str, ...] = ()
    own_bundle: Bundle | None = None

    def now(self, deadline: float) -> ServerIndex:
        """Return the index in its current state."""
        self.server.refresh(deadline)
        self.server.facts(self.name)
        return self

    @property
    def address(self) -> str:
        """Return its address."""
        return f"{self.server.url}#{self.name}"

    @property
    def bundle(self) -> Bundle:
        """Return the client's bundle.

        Raises:
            UsageError: if the client was given none: the server does not hand out its own.
        """
        if self.own_bundle is None:
            raise UsageError(f"{self.address} is a server, which does not hand out its bundle; give this client a bundle")
        return self.own_bundle

    @property
    def model(self) -> str:
        """Return the name of the checkpoint."""
        return self._facts.model

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return MetadataSchema.from_json(self._facts.fields)

    @property
    def strategies(self) -> tuple[str, ...]:
        """Return the strategies."""
        return tuple(self._facts.candidates)

    @property
    def _facts(self) -> _ServedFacts:
        return self.server.facts(self.name)

    def asked(self, query: object) -> EncodedQuery:
        """Return the checked query; a text stays a text.

        Raises:
            UsageError: if the query is not valid.
            LocalIndexError: if the server cannot read the index at the moment.
            VespaUnreachable: if the server cannot reach the index at the moment.
        """
        if isinstance(query, EncodedQuery):
            return query
        if self._facts.error:
            kind = VespaUnreachable if self._facts.backend == "vespa" else LocalIndexError
            raise kind(f"{self.address}: {self._facts.error}")
        if isinstance(query, QueryVectors):
            return ready_query(query, self._facts.dim)
        checked = check_query(query, self._facts.dim)
        if isinstance(checked, str):
            return EncodedQuery(np.zeros((0, self._facts.dim), np.float32), checked)
        return EncodedQuery(checked, None, ready=True)

    def settled(self, options: SearchOptions) -> SearchOptions:
        """Return the options unchanged: the server has the defaults."""
        return options

    def dense_needed(self, options: SearchOptions) -> Mapping[str, int]:
        """Return none: the server makes dense vectors from the text."""
        return {}

    def search(self, query: EncodedQuery, options: SearchOptions, deadline: float) -> Plan[SearchResult]:
        """Plan a search."""
        return (yield from self.search_many([query], options, deadline))[0]

    def search_many(self, queries: Sequence[EncodedQuery], options: SearchOptions, deadline: float) -> Plan[list[SearchResult]]:
        """Plan several searches."""
        body = {"index": list(self.names or (self.name,)), **_options(options)}
        if options.first_stage:
            return (yield from together([self._first_stage(query, body, deadline) for query in queries]))
        asks = [{**body, "queries": list(map(_query, part))} for part in _parts(queries)]
        answers = yield from self._ask("/v1/search", asks, deadline)
        found = []
        for answer, part in zip(answers, _parts(queries), strict=True):
            results = self._converted(answer, "results", ServerAnswers.results)
            if len(results) != len(part):
                raise VespaRefused(f"{self.address} returned {len(results)} results for {len(part)} queries")
            found += [result_of_server(result, answer.seconds, answer.sent) for result in results]
        return found

    def _first_stage(self, query: EncodedQuery, body: Mapping[str, Any], deadline: float) -> Plan[SearchResult]:
        """Plan to read the first line of an answer in stages, which comes when the first stage is done."""
        ask = {**body, "queries": [_query(query)]}
        (answer,) = yield (ServerQuery(self.server.url, "/v1/search", ask, deadline, first_line=True),)
        (result,) = converted([answer.body], ServerAnswers.results, self.server.url)
        return result_of_server(result, answer.seconds, answer.sent)

    def score(self, query: EncodedQuery, passage_ids: Sequence[str], deadline: float) -> Plan[ById[float]]:
        """Plan MaxSim with stored passages."""
        asked: dict[str, object] = _named(query)
        asks = [{**asked, "ids": list(part)} for part in _parts(passage_ids)]
        answers = yield from self._ask(self._path("score"), asks, deadline)
        scores: dict[str, float] = {}
        for answer in answers:
            given = self._converted(answer, "scores", ServerAnswers.scores)
            scores |= {id_: -np.inf if score is None else score for id_, score in given.items()}
        return self._by_id(passage_ids, scores, answers)

    def get(self, document_ids: Sequence[str], where: Where, deadline: float) -> Plan[ById[tuple[Passage, ...]]]:
        """Plan to read passages."""
        filtered = {} if where is None else {"where": where}
        asks = [{**filtered, "ids": list(part)} for part in _parts(document_ids)]
        answers = yield from self._ask(self._path("passages"), asks, deadline)
        passages: dict[str, tuple[Passage, ...]] = {}
        for answer in answers:
            passages |= passages_of_server(self._converted(answer, "passages", ServerAnswers.passages))
        return self._by_id(document_ids, passages, answers)

    def select(self, where: Where, limit: int, deadline: float) -> Plan[Ids]:
        """Plan to read document ids."""
        ask = {"limit": limit, **({} if where is None else {"where": where})}
        answers = yield from self._ask(self._path("select"), [ask], deadline)
        share, degraded = self._coverage(answers)
        return Ids(self._converted(answers[0], "ids", ServerAnswers.ids), share, degraded)

    def vectors(self, passage_ids: Sequence[str], deadline: float) -> Plan[ById[Matrix]]:
        """Plan to read stored vectors."""
        asks = [{"ids": list(part)} for part in _parts(passage_ids)]
        answers = yield from self._ask(self._path("vectors"), asks, deadline)
        rows: dict[str, Matrix] = {}
        for answer in answers:
            given = self._converted(answer, "vectors", ServerAnswers.vectors)
            rows |= {id_: matrix_of(one, self.server.url) for id_, one in given.items()}
        return self._by_id(passage_ids, rows, answers)

    def rerank(
        self, query: EncodedQuery, documents: Sequence[Document], k: int | None, explain: bool, deadline: float
    ) -> Plan[tuple[Hit, ...]]:
        """Plan to rank documents, encoded by the server.

        Raises:
            UsageError: if a document has its own vectors.
        """
        if ready := next((d.id for d in documents if d.vectors), None):
            raise UsageError(
                f"{self.address} reranks texts only, but document {ready!r} has vectors; remove them, or feed the "
                f"document there"
            )
        asked: dict[str, object] = _named(query)
        asked |= {"index": self.name, "explain": explain}
        parts = _parts(documents)
        texts = [[passage_text(d.title, d.text) for d in part] for part in parts]
        asks = [{**asked, "texts": part, "k": min(k or len(part), len(part))} for part in texts]
        answers = yield from self._ask("/v1/rerank", asks, deadline)
        hits: list[Hit] = []
        for part, answer in zip(parts, answers, strict=True):
            for hit in hits_of_server(self._converted(answer, "hits", ServerAnswers.hits)):
                d = part[self._place(hit.id, len(part))]
                hits.append(replace(hit, id=d.id, passage_id=d.id, title=d.title, text=d.text, metadata=d.metadata))
        best = sorted(hits, key=lambda hit: -hit.score)[:k]
        return tuple(replace(hit, rank=rank) for rank, hit in enumerate(best, start=1))

    def close(self) -> None:
        """Do nothing: the exchange has the connections."""

    def _place(self, id_: str, count: int) -> int:
        """Return the place of a text; VespaRefused if there is no such text."""
        if not id_.isdecimal() or int(id_) >= count:
            raise VespaRefused(f"{self.server.url} returned a text that was not sent")
        return int(id_)

    def _path(self, operation: str) -> str:
        return f"/v1/indexes/{quote(self.name, safe='')}/{operation}"

    def _ask(self, path: str, bodies: Sequence[Mapping[str, Any]], deadline: float) -> Plan[list[VespaAnswer]]:
        """Plan requests, all sent at once."""
        return (yield tuple(ServerQuery(self.server.url, path, body, deadline) for body in bodies)) if bodies else []

    def _converted(self, answer: VespaAnswer, name: str, kind: type[T]) -> T:
        return converted(answer.body.get(name), kind, self.server.url)

    def _coverage(self, answers: Sequence[VespaAnswer]) -> tuple[float, tuple[str, ...]]:
        shares = [self._converted(answer, "coverage", ServerAnswers.share) for answer in answers]
        reasons = [self._converted(answer, "degraded", ServerAnswers.reasons) for answer in answers]
        return min(shares, default=1.0), tuple(dict.fromkeys(why for those in reasons for why in those))

    def _by_id(self, ids: Sequence[str], values: Mapping[str, T], answers: Sequence[VespaAnswer]) -> ById[T]:
        share, degraded = self._coverage(answers)
        return ById({id_: values[id_] for id_ in ids if id_ in values}, share, degraded)


def only_server(indexes: Sequence[SearchIndex]) -> ServerIndex | None:
    """Return indexes of one server as one that searches them together; None if none is on a server.

    Raises:
        UsageError: if others are among them: scores of both models cannot be compared.
    """
    served = [index for index in indexes if isinstance(index, ServerIndex)]
    if not served:
        return None
    if len(served) < len(indexes) or len({index.server.url for index in served}) > 1:
        raise UsageError(
            "a server has its own model, whose scores cannot be compared with others; search each address separately"
        )
    return replace(served[0], names=tuple(index.name for index in served))


def _options(options: SearchOptions) -> dict[str, object]:
    """Return the options that differ from the defaults."""
    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in BY_OTHERS}
    chosen = {f.name: given[f.name] for f in fields(options) if f.name in given and given[f.name] != f.default}
    if options.weights is not None:
        chosen["weights"] = {name: float(weight) for name, weight in options.weights.items()}
    return chosen


def _query(query: EncodedQuery) -> str | dict[str, object]:
    """Return the query as an item of a request with several."""
    if not query.ready:
        return query.text or ""
    rows = packed_array(query.rows)
    if query.text is None and not query.dense:
        return rows
    return {"rows": rows, "dense": {name: packed_array(vector) for name, vector in query.dense.items()}, "text": query.text}


def _named(query: EncodedQuery) -> dict[str, object]:
    """Return the query as the fields of a request with one."""
    asked = _query(query)
    return {"rows" if isinstance(asked, dict) and "base64" in asked else "query": asked}


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[first : first + TOGETHER] for first in range(0, len(items), TOGETHER)]
