"""Convert rows of a dataset to documents, and add the columns of their vectors.

`vectors` has the token vectors of each passage of a document. `encoded` describes them: how they were computed, the passages as
ranges of characters, the vocabulary ids of the rows. Dead letters have the additional column `refused`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feeder.encoding.batches import EncodedPassages, failed
from feeder.feeding.part import KnownPassages
from feeder.sources.arrow import read_table
from feeder.sources.records import ROW, ColumnMapping, SourceLimits, document_of
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError
from late_interaction.ready_rows import RowRules

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ENCODED", "VECTORS", "BadRow", "check_columns", "documents_of", "known_passages", "refused_rows", "with_passages"]

VECTORS, ENCODED, REFUSED = "vectors", "encoded", "refused"
WHERE = "a row"  # in messages: rows of a dataset have no numbers


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot become a document, and why."""

    message: str


def check_columns(columns: ColumnMapping) -> None:
    """Check the columns.

    Raises:
        UsageError: If the ids are to be made from the places of the rows.
    """
    if columns.id == ROW:
        raise UsageError(f"rows of a dataset have no place; choose a column of ids instead of {ROW!r}")


def documents_of(table: pa.Table, columns: ColumnMapping, *, texts: bool) -> list[Document | BadRow]:
    """Return a document for each row, in order.

    Args:
        table: The rows.
        columns: Columns of id, title, text and others.
        texts: Whether at least one column of titles, texts or vectors must exist.

    Raises:
        CollectionError: If the columns do not fit, or values cannot be read.
    """
    names = set(table.column_names)
    wanted = {*columns.title, *columns.text, columns.vectors}
    if texts and not wanted & names:
        raise CollectionError(
            f"the dataset has no column of texts ({', '.join(sorted(wanted))}): it has {', '.join(sorted(names))}; name them "
            "with columns=ColumnMapping(text=...)"
        )
    plain = table.select([name for name in table.column_names if name not in _own(names)])
    found: list[Document | BadRow] = []
    for _, record in read_table(plain, WHERE, SourceLimits()):
        try:
            if isinstance(record, CollectionError):
                raise record
            assert isinstance(record, Mapping)
            found.append(document_of(record, WHERE, columns, ""))
        except CollectionError as error:
            found.append(BadRow(str(error)))
    return found


def _own(names: set[str]) -> set[str]:
    """Return the columns that do not belong to a document."""
    return {REFUSED, ENCODED, VECTORS} if ENCODED in names else {REFUSED}


def with_passages(table: pa.Table, encoded: Sequence[EncodedPassages], by: str, dim: int, dtype: str) -> pa.Table:
    """Add the columns `vectors` and `encoded` to a table.

    Args:
        table: The rows.
        encoded: Passages of each row.
        by: The `encoding_basis`.
        dim: Dimensions of the vectors.
        dtype: Type of the vectors' cells.
    """
    import pyarrow as pa

    passages = [rows for item in encoded for rows in item.vectors]
    flat = np.concatenate([np.zeros((0, dim), dtype), *(rows.astype(dtype, copy=False) for rows in passages)])
    rows = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), dim)
    matrices = pa.ListArray.from_arrays(_ends(len(one) for one in passages), rows)
    vectors = pa.ListArray.from_arrays(_ends(len(item.vectors) for item in encoded), matrices)
    described = [
        {
            "by": by, "title": item.title, "truncated": item.truncated, "error": item.error,
            "passages": [{"start": start, "end": end} for start, end in item.ranges],
            "token_ids": [None if ids is None else ids.tolist() for ids in item.token_ids],
        }
        for item in encoded
    ]  # fmt: skip
    return table.append_column(VECTORS, vectors).append_column(ENCODED, pa.array(described, _encoded_type()))


def _ends(counts: Any) -> Any:
    return np.cumsum([0, *counts], dtype=np.int32)


def _encoded_type() -> Any:
    import pyarrow as pa

    place = pa.struct([("start", pa.int32()), ("end", pa.int32())])
    return pa.struct([
        ("by", pa.string()), ("title", pa.string()), ("truncated", pa.bool_()), ("error", pa.string()),
        ("passages", pa.list_(place)), ("token_ids", pa.list_(pa.list_(pa.int32()))),
    ])  # fmt: skip


def known_passages(table: pa.Table, rows: Sequence[Document | BadRow], bundle: Bundle) -> KnownPassages | None:
    """Return what the columns of `encode` contain for the rows; None if the columns do not exist.

    Raises:
        CollectionError: If the vectors belong to another bundle or were made in several ways, or if the columns are not those
            written by `encode`.
    """
    names = set(table.column_names)
    if ENCODED not in names:
        return None
    if VECTORS not in names:
        raise CollectionError(f"the dataset has the column {ENCODED!r} but no {VECTORS!r}; keep both, or drop both")
    records = [record for _, record in read_table(table.select([VECTORS, ENCODED]), WHERE, SourceLimits())]
    known: dict[tuple[str, str], EncodedPassages] = {}
    made: set[str] = set()
    for document, record in zip(rows, records, strict=True):
        if isinstance(document, BadRow):
            continue
        encoded = record.get(ENCODED) if isinstance(record, Mapping) else None
        if not isinstance(record, Mapping) or not isinstance(encoded, Mapping) or encoded.keys() != _members():
            raise CollectionError(f"columns {VECTORS!r} and {ENCODED!r} were not made by encode(); encode the dataset again")
        made.add(str(encoded["by"]))
        known[document.title, document.text] = _passages(encoded, record[VECTORS], document, bundle.document_rows)
    if len(made) > 1 or any(bundle.sha256 not in by for by in made):
        raise CollectionError(
            f"the dataset was not encoded with {bundle.path}, or in several ways; encode it again, or feed it without vectors"
        )
    return KnownPassages(made.pop() if made else "", known)


def _members() -> set[str]:
    return {field.name for field in _encoded_type()}


def _passages(encoded: Mapping[str, Any], given: Any, document: Document, rules: RowRules) -> EncodedPassages:
    if encoded["error"]:
        return failed(encoded["error"])
    ranges = tuple((place["start"], place["end"]) for place in encoded["passages"])
    try:
        vectors: tuple[Matrix, ...] = tuple(rules.checked(np.asarray(rows)) for rows in given or ())
    except (UsageError, ValueError) as error:
        return failed(str(error))
    ids = tuple(None if ids is None else np.asarray(ids, np.int32) for ids in encoded["token_ids"])
    fit = len(ranges) == len(vectors) == len(ids) and all(0 <= start <= end <= len(document.text) for start, end in ranges)
    if not fit or any(own is not None and len(own) != len(rows) for own, rows in zip(ids, vectors, strict=True)):
        return failed("its text, vectors and passages do not match; encode it again")
    return EncodedPassages(encoded["title"], ranges, vectors, ids, encoded["truncated"])


def refused_rows(table: pa.Table, refused: Sequence[tuple[int, int, str]]) -> pa.Table:
    """Return the rows at some places, each with HTTP status (0: not sent) and message in the column `refused`."""
    import pyarrow as pa

    type_ = pa.struct([("status", pa.int32()), ("message", pa.string())])
    reasons = pa.array([{"status": status, "message": message} for _, status, message in refused], type_)
    plain = table.drop_columns([REFUSED]) if REFUSED in table.column_names else table
    return plain.take(pa.array([place for place, _, _ in refused], pa.int64())).append_column(REFUSED, reasons)
