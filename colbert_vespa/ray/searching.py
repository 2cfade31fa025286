"""`search`: add hits to a dataset of queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_vespa.ray.pools import Workers, mapped, ray_data
from colbert_vespa.ray.shipping import ShippedBundle, opened_bundle, ship
from feeder.sources.arrow import read_table
from feeder.sources.records import SourceLimits
from late_interaction.bundle import Bundle
from late_interaction.errors import CollectionError, UsageError
from query import Client, ClientSettings
from query.core import Addresses, addresses_of
from query.options import SearchOptions

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

__all__ = ["SearchingWorker", "search"]

HITS = "hits"


def search(
    dataset: Dataset,
    address: Addresses,
    bundle: Bundle | str | Path | None = None,
    *,
    column: str = "query",
    options: SearchOptions | None = None,
    settings: ClientSettings | None = None,
    workers: Workers | None = None,
) -> Dataset:
    """Add the hits of each query to a dataset, when that is consumed.

    The column `hits` has rank, id, passage_id, score and index of each, best first. An answer that does not cover all documents
    ends the run, unless `settings` take it.

    Args:
        dataset: rows with a query each.
        address: one or several, as of a client; a folder must be there on every machine.
        bundle: of the application; without it a server's own, or that of a local index.
        column: of the queries: texts, or the rows of ready vectors.
        options: of every search.
        settings: of every worker's client; by default with a minute for a query, and whole answers required.
        workers: how many, and what each of them is given.

    Returns:
        The dataset that does it.

    Raises:
        BundleError, UsageError, MissingDependency: before anything runs. What a worker meets is raised by Ray.
    """
    ray_data()
    workers, options = workers or Workers(), options or SearchOptions()
    if options.explain:
        raise UsageError("a dataset has no column for explanations; omit explain")
    opened = None if bundle is None else opened_bundle(bundle)
    arguments = {
        "address": [place if isinstance(place, str) else place.absolute() for place in addresses_of(address)],
        "bundle": None if opened is None else ship(opened),
        "column": column, "options": options, "settings": settings or ClientSettings(timeout=60.0, require_full=True),
    }  # fmt: skip
    return mapped(dataset, SearchingWorker, arguments, workers)


class SearchingWorker:
    """One client, which is opened with the first queries."""

    def __init__(
        self, address: Addresses, bundle: ShippedBundle | None, column: str, options: SearchOptions, settings: ClientSettings
    ) -> None:
        self._address, self._shipped, self._settings = address, bundle, settings
        self._column, self._options = column, {field.name: getattr(options, field.name) for field in fields(options)}

    @cached_property
    def _client(self) -> Client:
        bundle = None if self._shipped is None else self._shipped.open()
        return Client(self._address, bundle, settings=self._settings)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Search for the queries of a table.

        Raises:
            CollectionError: If the column of queries does not exist.
            ColbertVespaError: As for the client.
        """
        import pyarrow as pa

        if self._column not in table.column_names:
            raise CollectionError(f"the dataset has no column {self._column!r}: it has {', '.join(table.column_names)}")
        queries = [
            _query(item, self._column) for _, item in read_table(table.select([self._column]), "queries", SourceLimits())
        ]
        results = self._client.search_many(queries, **self._options)
        hits = [[{name: getattr(hit, name) for name in HIT} for hit in result.hits] for result in results]
        return table.append_column(
            HITS, pa.array(hits, pa.list_(pa.struct([(name, pa.type_for_alias(HIT[name])) for name in HIT])))
        )


HIT = {"rank": "int32", "id": "string", "passage_id": "string", "score": "float32", "index": "string"}


def _query(item: Any, column: str) -> Any:
    """Return a query as text or rows `[q, d]`; CollectionError if it is neither."""
    value = item[column] if isinstance(item, Mapping) else item
    if isinstance(value, str):
        return value
    if isinstance(value, CollectionError):
        raise value
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise CollectionError(f"column {column!r} must have texts, or rows of numbers, got {type(value).__name__}") from None
