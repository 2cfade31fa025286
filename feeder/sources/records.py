"""Convert records of any source to documents, by a mapping of columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from late_interaction.documents import Document
from late_interaction.errors import CollectionError, MetadataError, UsageError
from late_interaction.ready_rows import matrices_of
from late_interaction.text import checked_id, checked_text

__all__ = [
    "Cell",
    "ColumnMapping",
    "SourceLimits",
    "SourceRecord",
    "SourceSettings",
    "document_of",
    "has_id",
    "id_of",
    "text_of",
]

DENSE = "dense"
ROW = "@row"  # as id column: the place in the source is the id
SourceRecord = Mapping[str, object]


class Cell(str):
    """A text that has another type as metadata."""

    typed: object

    def __new__(cls, text: str, typed: object) -> Cell:
        """Make a text with its typed value."""
        made = super().__new__(cls, text)
        made.typed = typed
        return made

    def __getnewargs__(self) -> tuple[str, object]:  # type: ignore[override]
        """Support copying and pickling."""
        return str(self), self.typed


@dataclass(frozen=True)
class ColumnMapping:
    """Which columns become what.

    Attributes:
        id: column of the ids, `@row` for the place in the source, empty for `id` or `_id`.
        title: one column, or several that are joined by a blank line.
        text: one column, or several that are joined by a blank line.
        metadata: columns that are kept as metadata; None for all others, and the members of a column `metadata`.
        names: another name for a metadata column.
        vectors: column of token vectors that were made elsewhere; empty for none.
        dense: by dense model, the column of its vectors; a column `dense` of objects has them by name,
            one of numbers those of the model `dense`.
    """

    id: str = ""
    title: tuple[str, ...] = ("title",)
    text: tuple[str, ...] = ("text",)
    metadata: tuple[str, ...] | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    vectors: str = "vectors"
    dense: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceLimits:
    """Size limits.

    Attributes:
        line_mb: MiB of a line, row or array element.
        file_mb: MiB of a text, HTML or PDF file.
        unpacked: how many times larger a compressed file or a PDF stream may become, beyond the first 64 MiB.
    """

    line_mb: int = 32
    file_mb: int = 64
    unpacked: int = 200

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: if one is negative.
        """
        for name, value in (("line_mb", self.line_mb), ("file_mb", self.file_mb), ("unpacked", self.unpacked)):
            if value < 0:
                raise UsageError(f"limits.{name} cannot be negative, got {value}")


@dataclass(frozen=True)
class SourceSettings:
    """Settings of sources.

    Attributes:
        columns: which columns become what.
        limits: size limits.
        format: kind of the sources, if their names do not tell.
        skip_bad: skip and report files and records that cannot be read.
        delimiter: delimiter of CSV and TSV, if it is not the usual one.
        required: columns that at least one record must have.
    """

    columns: ColumnMapping = field(default_factory=ColumnMapping)
    limits: SourceLimits = field(default_factory=SourceLimits)
    format: str = ""
    skip_bad: bool = False
    delimiter: str = ""
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the delimiter.

        Raises:
            UsageError: if it is not one character, or is a quote or a line break.
        """
        if self.delimiter and (len(self.delimiter) > 1 or self.delimiter in '"\r\n'):
            raise UsageError(f"delimiter must be one character, but not a quote or a line break, got {self.delimiter!a}")


def has_id(record: SourceRecord, columns: ColumnMapping) -> bool:
    """Tell whether a record has its own id."""
    return columns.id == ROW or (columns.id in record if columns.id else "id" in record or "_id" in record)


def document_of(record: SourceRecord, where: str, columns: ColumnMapping, row: str) -> Document:
    """Convert a record to a document.

    Args:
        record: the record.
        where: its place, for error messages.
        columns: which columns become what.
        row: the record's place, as an id.

    Raises:
        CollectionError: if it does not fit; the message names `where`.
    """
    own_id = {"id": row} if columns.id == ROW else record
    column = "" if columns.id == ROW else columns.id
    if column and column not in record:
        raise CollectionError(
            f"{where} has no column {column!r} for the id; it has: {', '.join(map(str, record))[:200] or 'none'}"
        )
    used = {column} if column else {"id", "_id"}
    used |= {*columns.title, *columns.text, columns.vectors, "metadata", *columns.dense.values()}
    inner = {} if DENSE in used or DENSE in (columns.metadata or ()) else _dense_of(record.get(DENSE))
    metadata = _metadata(record, where, columns, used | ({DENSE} if inner else set()))
    dense = {model: given for model, given in inner.items() if given is not None}
    dense |= {model: record[name] for model, name in columns.dense.items() if record.get(name) is not None}
    title = "\n\n".join(part for name in columns.title if (part := text_of(record, name, where)).strip())
    text = "\n\n".join(part for name in columns.text if (part := text_of(record, name, where)))
    try:
        vectors = matrices_of(record.get(columns.vectors), columns.vectors)
    except UsageError as error:
        hint = 'if the column contains something else, set [columns] vectors = "" in feed.toml'
        raise CollectionError(f"{where}: {error} ({hint})") from None
    try:
        id_ = id_of(own_id, where, column)
        fields = {"id": id_, "title": title, "text": text, "metadata": metadata, "dense": dense, "vectors": vectors}
        return Document.of_source(fields)
    except (UsageError, MetadataError) as error:
        raise CollectionError(f"{where}: {error}") from None


def _dense_of(given: object) -> Mapping[str, object]:
    """Return vectors by dense model; numbers without a name belong to the model `dense`."""
    if isinstance(given, Mapping):
        return given
    rows = given if isinstance(given, (list, tuple)) else ()
    numbers = [number for row in rows for number in (row if isinstance(row, (list, tuple)) else [row])]
    real = any(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers)
    return {DENSE: given} if real else {}


def id_of(record: SourceRecord, where: str, column: str = "") -> str:
    """Return the id of a record.

    Raises:
        CollectionError: if it has none.
    """
    raw = record.get(column) if column else record.get("id", record.get("_id"))
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        like = next((name for name in record if name not in ("id", "_id") and name.strip().lower() in ("id", "_id")), "")
        hint = ""
        if raw is None and not column:
            names = ", ".join(map(str, record))[:200] or "none"
            hint = f"; its columns: {names}; --column id=NAME says which has it, --column id=@row numbers the rows"
            hint = f"; to use {like!r}, add --column {shlex.quote(f'id={like}')}" if like else hint
        raise CollectionError(
            f'{where} has no id; every record needs a non-empty "{column or "id"}"{"" if column else " (or _id)"}{hint}'
        )
    try:
        return checked_id(raw, f"{where}: id")
    except UsageError as error:
        raise CollectionError(str(error)) from None


def text_of(record: SourceRecord, key: str, where: str) -> str:
    """Return the text of a column.

    Raises:
        CollectionError: if it is not text.
    """
    value = record.get(key)
    try:
        return "" if value is None else checked_text(value, f"{where}: {key}")
    except UsageError as error:
        raise CollectionError(str(error)) from None


def _metadata(record: SourceRecord, where: str, columns: ColumnMapping, used: set[str]) -> dict[str, object]:
    inner = record.get("metadata") or {}
    if not isinstance(inner, Mapping):
        raise CollectionError(f"{where}: metadata must be an object, got {type(inner).__name__}")
    outer = {key: value for key, value in record.items() if key not in used}
    if twice := sorted(set(inner) & set(outer)):
        raise CollectionError(f"{where}: {twice[0]!r} occurs both in metadata and beside it")
    found = {**inner, **outer}
    if columns.metadata is not None:
        found = {name: found.get(name, record.get(name)) for name in columns.metadata}
    named = {columns.names.get(key, key): value.typed if isinstance(value, Cell) else value for key, value in found.items()}
    if len(named) < len(found):
        raise CollectionError(f"{where}: two metadata columns have the same name")
    return named
