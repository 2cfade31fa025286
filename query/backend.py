"""What the client asks of an index, whichever backend it is in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Protocol, TypeAlias

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Passage
from late_interaction.encoder import Encoder, check_finite
from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.text import clean_text
from query.options import AUTO, SearchOptions
from query.plans import Plan
from query.types import ById, EncodedQuery, Ids, Query, SearchResult

__all__ = ["SearchIndex", "Where", "check_query", "choose_strategy", "encode_query"]

Where: TypeAlias = Mapping[str, object] | None


class SearchIndex(Protocol):
    """One index. Both backends raise the same errors."""

    def now(self, deadline: float) -> SearchIndex:
        """The index as it is now, with the bundle that it has now: another that takes its place does not change this one.

        Raises: LocalIndexError, BundleError, VespaError, UsageError where there is no such index any more.
        """
        ...

    @property
    def name(self) -> str:
        """Of a Vespa application the schema, of a local index the folder."""
        ...

    @property
    def address(self) -> str: ...
    @property
    def bundle(self) -> Bundle: ...
    @property
    def schema(self) -> MetadataSchema: ...
    @property
    def strategies(self) -> tuple[str, ...]:
        """Names that `candidates` takes here; the first is preferred."""
        ...

    def search(self, query: EncodedQuery, options: SearchOptions, deadline: float) -> Plan[SearchResult]:
        """deadline: on the client's clock. Hits without explanations.

        Raises: FilterError, UsageError, LocalIndexError, VespaError, also where the plan is carried out.
        """
        ...

    def search_many(self, queries: Sequence[EncodedQuery], options: SearchOptions, deadline: float) -> Plan[list[SearchResult]]:
        """As `search` for each of them, side by side."""
        ...

    def score(self, query: EncodedQuery, passage_ids: Sequence[str], deadline: float) -> Plan[ById[float]]:
        """MaxSim with the stored vectors of those passages; unknown ids are left out."""
        ...

    def get(self, document_ids: Sequence[str], where: Where, deadline: float) -> Plan[ById[tuple[Passage, ...]]]:
        """The passages of those documents, metadata as shown; unknown ids are left out, and what the filter does not select.

        Raises: FilterError.
        """
        ...

    def select(self, where: Where, limit: int, deadline: float) -> Plan[Ids]:
        """Ids of documents of at most `limit` passages that the filter selects. Raises: as `get`."""
        ...

    def vectors(self, passage_ids: Sequence[str], deadline: float) -> Plan[ById[Matrix]]:
        """Stored unit rows `[t, d]` of those passages, as the codec decodes them; unknown ids are left out.

        Raises: UsageError where the index cannot give them.
        """
        ...

    def close(self) -> None: ...


def choose_strategy(asked: str, known: tuple[str, ...], address: str, unfit: Mapping[str, str]) -> tuple[str, str]:
    """The candidates of a query, and why where nobody named them. known: in order of preference, as the index describes itself.
    unfit: strategies that cannot take this query, and why.

    Raises: UsageError where the strategy that was asked for is unknown or cannot take the query, or none can.
    """
    if asked != AUTO:
        if asked not in known:
            raise UsageError(f"candidates {asked!r} unknown at {address}; it has: {', '.join(known)}")
        if asked in unfit:
            raise UsageError(f"candidates {asked} cannot take this query: {unfit[asked]}")
        return asked, ""
    for strategy in known:
        if strategy not in unfit:
            before = [f"{name}: {unfit[name]}" for name in known[: known.index(strategy)]]
            return strategy, f"{strategy} is the first of {', '.join(known)} that {address} has for this query" + (
                f" ({'; '.join(before)})" if before else ""
            )
    raise UsageError(f"no candidates at {address} can take this query: " + "; ".join(f"{n}: {why}" for n, why in unfit.items()))


def check_query(query: object, dim: int) -> Query:
    """A cleaned text, or rows `[q, dim]` as float32. Raises: UsageError on a blank text or rows of another shape."""
    if isinstance(query, str):
        text = clean_text(query)
        if not text.strip():
            raise UsageError("the query is blank")
        return text
    if query is None or isinstance(query, (bytes, Mapping, Set)):
        raise UsageError(f"a query is a text or rows of numbers, got {type(query).__name__}")
    try:
        rows = np.ascontiguousarray(query, np.float32)
    except (TypeError, ValueError):
        raise UsageError(f"a query is a text or rows of numbers, got {type(query).__name__}") from None
    if rows.ndim != 2 or rows.shape[1] != dim or not len(rows) or not np.isfinite(rows).all():
        raise UsageError(f"query rows must be finite numbers of shape [q, {dim}], got {list(rows.shape)}")
    return rows


def encode_query(query: object, dim: int, encoder: Callable[[], Encoder]) -> EncodedQuery:
    """dim: of the rows. encoder: asked for where the query is a text. Raises: UsageError as check_query."""
    checked = check_query(query, dim)
    if not isinstance(checked, str):
        return EncodedQuery(checked, None)
    model = encoder()
    start = time.perf_counter()
    rows = model.encode_queries([checked])
    check_finite(rows, model.bundle)
    return EncodedQuery(rows[0], checked, time.perf_counter() - start)
