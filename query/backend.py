"""The interface between the client and an index of either backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Protocol, TypeAlias

import numpy as np

from late_interaction.array_types import Matrix, Vector
from late_interaction.bundle import Bundle
from late_interaction.documents import Passage
from late_interaction.encoder import Encoder, check_finite
from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.text import checked_text, clean_text
from query.options import AUTO, SearchOptions
from query.plans import Plan
from query.types import ById, EncodedQuery, Ids, QueryVectors, SearchResult
from vespa_app.candidates import STRATEGIES
from vespa_app.settings.application_settings import parts_of

__all__ = [
    "NO_MODEL",
    "DenseModel",
    "SearchIndex",
    "Where",
    "check_query",
    "choose_strategy",
    "dense_model",
    "dense_of_query",
    "encode_query",
    "ready_query",
    "unfit_for",
    "with_dense",
]

Where: TypeAlias = Mapping[str, object] | None


class DenseModel(Protocol):
    """Makes the dense vectors of queries."""

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        """Return a row per text."""


NO_MODEL = (
    "the bundle has no model to encode it; give ready-made rows (--vectors), or use candidates bm25, which need only words"
)


class SearchIndex(Protocol):
    """One index. Both backends raise the same errors."""

    def now(self, deadline: float) -> SearchIndex:
        """Return the index in its current state, with its current bundle; a later replacement does not change it.

        Raises:
            LocalIndexError: if there is no such index any more.
            BundleError: if its bundle is not known here.
            VespaError: if Vespa does not answer.
            UsageError: if a server no longer serves it.
        """
        ...

    @property
    def name(self) -> str:
        """Return its name: the schema of a Vespa application, the folder of a local index."""
        ...

    @property
    def address(self) -> str:
        """Return its address."""

    @property
    def bundle(self) -> Bundle:
        """Return its bundle."""

    @property
    def schema(self) -> MetadataSchema:
        """Return its metadata fields."""

    @property
    def strategies(self) -> tuple[str, ...]:
        """Return the names that `candidates` accepts; the first is preferred."""
        ...

    def settled(self, options: SearchOptions) -> SearchOptions:
        """Return the options with the index's own weights and fusion as defaults."""
        ...

    def dense_needed(self, options: SearchOptions) -> Mapping[str, int]:
        """Return the dimensions of the dense models whose query vector such a search needs; empty if none.

        Raises:
            UsageError: if the index has no such dense model.
        """
        ...

    def search(self, query: EncodedQuery, options: SearchOptions, deadline: float) -> Plan[SearchResult]:
        """Plan a search; its hits have no explanations.

        Args:
            query: the encoded query.
            options: options of the search.
            deadline: on the client's clock.

        Raises:
            FilterError: if the filter is not valid.
            UsageError: if an option does not fit.
            LocalIndexError: if the index is damaged; also while the plan runs.
            VespaError: if Vespa does not answer or refuses; also while the plan runs.
        """
        ...

    def search_many(self, queries: Sequence[EncodedQuery], options: SearchOptions, deadline: float) -> Plan[list[SearchResult]]:
        """Plan `search` for several queries side by side."""
        ...

    def score(self, query: EncodedQuery, passage_ids: Sequence[str], deadline: float) -> Plan[ById[float]]:
        """Plan MaxSim with the stored vectors of those passages; unknown ids are left out."""
        ...

    def get(self, document_ids: Sequence[str], where: Where, deadline: float) -> Plan[ById[tuple[Passage, ...]]]:
        """Plan to read the passages of those documents that the filter selects, with metadata as shown.

        Unknown ids are left out.

        Raises:
            FilterError: if the filter is not valid.
        """
        ...

    def select(self, where: Where, limit: int, deadline: float) -> Plan[Ids]:
        """Plan to read the document ids of at most `limit` passages that the filter selects.

        Raises:
            FilterError: if the filter is not valid.
        """
        ...

    def vectors(self, passage_ids: Sequence[str], deadline: float) -> Plan[ById[Matrix]]:
        """Plan to read stored unit rows `[t, d]` of those passages, as decoded; unknown ids are left out.

        Raises:
            UsageError: if the index cannot return them.
        """
        ...

    def close(self) -> None:
        """Release the index."""


def choose_strategy(asked: str, known: tuple[str, ...], address: str, unfit: Mapping[str, str]) -> tuple[str, str]:
    """Return the candidates of a query, and the reason if nobody named them.

    Args:
        asked: candidates asked for.
        known: strategies of the index, in order of preference.
        address: the index, for messages.
        unfit: strategies that cannot take this query, and why.

    Raises:
        UsageError: if the requested strategy is unknown or cannot take the query, or none can.
    """
    if asked != AUTO:
        single = {part for name in known for part in parts_of(name)}
        for part in parts_of(asked):
            if part not in single:
                raise UsageError(f"candidates {part!r} are unknown at {address}; known: {', '.join(known)}")
            if part in unfit:
                raise UsageError(f"candidates {part} do not work with this query: {unfit[part]}")
        return asked, ""
    why = {name: next((unfit[part] for part in parts_of(name) if part in unfit), "") for name in known}
    for strategy in known:
        if not why[strategy]:
            before = [f"{name}: {why[name]}" for name in known[: known.index(strategy)]]
            return strategy, f"{strategy} is the first of {', '.join(known)} that {address} has for this query" + (
                f" ({'; '.join(before)})" if before else ""
            )
    raise UsageError(f"no candidates at {address} work with this query: " + "; ".join(f"{n}: {w}" for n, w in why.items()))


def unfit_for(query: EncodedQuery, options: SearchOptions, dense: str | None) -> dict[str, str]:
    """Return strategies that cannot take a query because it lacks something, and why.

    options: with the index's defaults. dense: the model that they name.
    """
    words = "it needs the query as text, not ready-made rows"
    vector = f"it needs the query as text, or its vector of dense model {dense!r} (QueryVectors)"
    weights = options.fusion_weights
    found = {} if len(query.rows) else _unfit_without_rows(options)
    if not query.text:
        found["bm25"] = words
        if "bm25" in weights:
            found["hybrid"] = words
    if dense not in query.dense:
        found["dense"] = vector
        if "dense" in weights:
            found["hybrid"] = vector
    return found


def _unfit_without_rows(options: SearchOptions) -> dict[str, str]:
    """Return all strategies but those that need only words or dense vectors; UsageError if nobody named candidates."""
    if options.candidates == AUTO:
        raise UsageError(f"a text cannot be searched here: {NO_MODEL}")
    ranked = "maxsim" in options.fusion_weights
    return {name: NO_MODEL for name in STRATEGIES if name != "bm25" and (ranked or name != "hybrid")}


def dense_model(asked: str | None, known: Iterable[str], address: str) -> str:
    """Return the dense model of a search: the named one, the only one, or `dense`.

    Raises:
        UsageError: if there is none.
    """
    names = tuple(known)
    if not names:
        raise UsageError(f"{address} has no dense model; export its bundle with --dense, and feed it again")
    chosen = asked or (names[0] if len(names) == 1 else "dense")
    if chosen not in names:
        what = f"dense model {chosen!r} is unknown at {address}" if asked else f"{address} has several dense models; choose one"
        raise UsageError(f"{what}; it has: {', '.join(names)}")
    return chosen


def dense_of_query(
    options: SearchOptions, strategies: Sequence[str], models: Mapping[str, int], address: str
) -> Mapping[str, int]:
    """Return the dense models that a query needs; see `SearchIndex.dense_needed`.

    options: with the index's defaults. models: dense models of the index and their dimensions.
    """
    asked = replace(options, candidates=strategies[0]) if options.candidates == AUTO else options
    if not asked.needs_dense:
        if options.dense is not None:
            dense_model(options.dense, models, address)
        return {}
    name = dense_model(options.dense, models, address)
    return {name: models[name]}


def check_query(query: object, dim: int) -> str | Matrix:
    """Return a cleaned text, or rows `[q, dim]` as float32.

    Raises:
        UsageError: if the text is blank or the rows have another shape.
    """
    if isinstance(query, str):
        text = clean_text(query)
        if not text.strip():
            raise UsageError("the query is blank")
        return text
    rows = _numbers(query)
    if rows.ndim == 1 and rows.size and rows.size % dim == 0:  # all numbers in one list, as in documents
        rows = rows.reshape(-1, dim)
    if rows.ndim != 2 or rows.shape[1] != dim or not len(rows) or not np.isfinite(rows).all():
        raise UsageError(f"query rows must be finite numbers of shape [q, {dim}], got {list(rows.shape)}")
    return rows


def _numbers(given: object, what: str = "a query must be a text or rows of numbers") -> Matrix:
    """Return numbers; UsageError, in which `what` says what is needed, if they are not."""
    try:
        if given is None or isinstance(given, (bytes, Mapping, Set)) or getattr(given, "dtype", np.dtype(float)).kind == "c":
            raise TypeError
        with np.errstate(over="ignore"):  # values that are too large become infinite and are rejected
            return np.ascontiguousarray(given, np.float32)
    except (TypeError, ValueError):
        raise UsageError(f"{what}, got {type(given).__name__}") from None


def ready_query(query: QueryVectors, dim: int) -> EncodedQuery:
    """Return a query that needs no encoding.

    Raises:
        UsageError: as in `check_query`.
    """
    rows = check_query(_numbers(query.rows), dim)
    assert not isinstance(rows, str)
    text = None if query.text is None else checked_text(query.text, "the text of QueryVectors")
    return EncodedQuery(rows, text, dense=_ready_dense(query.dense), ready=True)


def encode_query(query: object, dim: int, encoder: Callable[[], Encoder], *, encodes: bool = True) -> EncodedQuery:
    """Encode a query.

    Args:
        query: text, rows or QueryVectors.
        dim: dimensions of a row.
        encoder: called if the query is a text.
        encodes: whether there is an encoder; otherwise a text has no rows.

    Raises:
        UsageError: as in `check_query`.
    """
    if isinstance(query, QueryVectors):
        return ready_query(query, dim)
    checked = check_query(query, dim)
    if not isinstance(checked, str):
        return EncodedQuery(checked, None, ready=True)
    if not encodes:
        return EncodedQuery(np.zeros((0, dim), np.float32), checked)
    model = encoder()
    start = time.perf_counter()
    rows_of_all = model.encode_queries([checked])
    check_finite(rows_of_all, model.bundle)
    return EncodedQuery(rows_of_all[0], checked, time.perf_counter() - start)


def with_dense(query: EncodedQuery, needed: Mapping[str, int], encoder: Callable[[str], DenseModel]) -> EncodedQuery:
    """Add the dense vectors that the query still lacks, if it has a text.

    needed: dimensions by name of the model.

    Raises:
        UsageError: if a supplied vector has another shape, or is all zeros.
    """
    models = {name: encoder(name) for name in needed if query.text and name not in query.dense}
    start = time.perf_counter()
    made = {name: model.encode_queries([query.text or ""])[0] for name, model in models.items()}
    vectors = {**query.dense, **made}
    for name, dim in needed.items():
        vector = vectors.get(name)
        if vector is not None and (vector.shape != (dim,) or not np.isfinite(vector).all() or not vector.any()):
            wanted = f"must be {dim} finite numbers, not all 0, got shape {list(vector.shape)}"
            raise UsageError(f"the query's vector of dense model {name!r} {wanted}")
    took = time.perf_counter() - start if made else 0.0
    return replace(query, dense=vectors, encode_s=query.encode_s + took) if needed else query


def _ready_dense(given: Mapping[str, Vector]) -> dict[str, Vector]:
    """Return supplied vectors by name; UsageError if they are not that."""
    if not isinstance(given, Mapping):
        raise UsageError(f'dense vectors of a query must be given by name, as {{"dense": vector}}, got {type(given).__name__}')
    return {
        str(name): _numbers(vector, f"the query's vector of dense model {name!r} must be numbers")
        for name, vector in given.items()
    }
