"""`encode`: add token vectors to a dataset of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_vespa.ray.pools import Workers, mapped, ray_data
from colbert_vespa.ray.rows import ENCODED, VECTORS, BadRow, check_columns, documents_of, with_passages
from colbert_vespa.ray.shipping import ShippedBundle, opened_bundle, ship
from feeder.encoding.batches import EncodedPassages, Text, batched, encode_batch, encoding_basis, failed
from feeder.encoding.passages import Splitting
from feeder.sources import ColumnMapping
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import CollectionError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

__all__ = ["EncodingWorker", "encode"]

DTYPES = ("float32", "float16")


def encode(
    dataset: Dataset,
    bundle: Bundle | str | Path,
    *,
    workers: Workers | None = None,
    columns: ColumnMapping | None = None,
    splitting: Splitting | None = None,
    dtype: str = "float32",
) -> Dataset:
    """Add the token vectors of each document to a dataset, when that is consumed.

    The column `vectors` has a list of rows for each passage, `encoded` what `feed` needs to know of them. A row that cannot
    be a document has no vectors, and `encoded.error` says why.

    Args:
        dataset: rows with an id, texts, and metadata in all other columns.
        bundle: the exported model; machines that do not have it at that path get a copy.
        workers: how many, and what each of them is given.
        columns: names of the columns, where they are not id, title and text.
        splitting: how texts are cut into passages.
        dtype: of the vectors: float32, or float16 in half the space.

    Returns:
        The dataset that does it.

    Raises:
        BundleError, UsageError, MissingDependency: before anything runs. What a worker meets is raised by Ray.
    """
    ray_data()
    workers, columns = workers or Workers(), columns or ColumnMapping()
    check_columns(columns)
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown; known: {', '.join(DTYPES)}")
    opened = opened_bundle(bundle)
    arguments = {
        "bundle": ship(opened), "encoder": workers.encoder(opened), "splitting": splitting or Splitting(), "columns": columns,
        "dtype": dtype,
    }  # fmt: skip
    return mapped(dataset, EncodingWorker, arguments, workers)


class EncodingWorker:
    """One encoder. Everything is opened with the first rows, so that errors are those of a task."""

    def __init__(
        self, bundle: ShippedBundle, encoder: Mapping[str, Any], splitting: Splitting, columns: ColumnMapping, dtype: str
    ) -> None:
        self._shipped, self._arguments = bundle, encoder
        self._splitting, self._columns, self._dtype = splitting, columns, dtype

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self._shipped.open(), **self._arguments)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the rows with their vectors, in parts of bounded size.

        Raises:
            CollectionError: If the dataset has other columns than expected.
        """
        if taken := {VECTORS, ENCODED, self._columns.vectors} & set(table.column_names):
            raise CollectionError(f"the dataset already has a column {min(taken)!r}; drop it, or feed the dataset unchanged")
        rows = documents_of(table, self._columns, texts=True)
        done = 0
        for part in batched(rows, _characters):
            yield self._with_vectors(table.slice(done, len(part)), part)
            done += len(part)
        if not rows:
            yield self._with_vectors(table, [])

    def _with_vectors(self, table: pa.Table, rows: Sequence[Document | BadRow]) -> pa.Table:
        encoder = self._encoder
        texts = [Text(row.title, row.text) for row in rows if isinstance(row, Document) and not row.blank]
        made = iter(encode_batch(texts, self._splitting, encoder.tokenizing, encoder))
        encoded = [next(made) if isinstance(row, Document) and not row.blank else _none(row) for row in rows]
        by = encoding_basis(encoder.bundle, self._splitting, encoder.precision)
        return with_passages(
            table, encoded, by if self._dtype == DTYPES[0] else f"{by} {self._dtype}", encoder.dim, self._dtype
        )


def _none(row: Document | BadRow) -> EncodedPassages:
    return EncodedPassages("", (), (), (), truncated=False) if isinstance(row, Document) else failed(row.message)


def _characters(row: Document | BadRow) -> int:
    return 0 if isinstance(row, BadRow) else len(row.title) + len(row.text)
