"""Metadata of a segment as typed columns, and filters evaluated on them.

Every field has `present [n]`. Numbers and booleans have `values [n]`; texts have `values [n]`, ids into a sorted list of
words; lists have `offsets [n + 1]` into the values of all. A missing value matches no comparison, and neither does an empty
list: `$exists` is false for it, as on Vespa.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Mask
from late_interaction.bundle import FileEntry
from late_interaction.errors import LocalIndexError
from late_interaction.filters import And, Exists, Filter, In, Near, Not, Or, Range
from late_interaction.metadata import FieldType, MetadataSchema, Value
from late_interaction.places_and_times import near
from late_interaction.plaid.store.storage import Strings, StringsWriter, open_array, write_array

__all__ = ["Column", "SegmentColumns", "column_of", "evaluate", "join_columns", "open_columns", "write_columns"]

_DTYPES = {
    FieldType.INT: "<i4",
    FieldType.LONG: "<i8",
    FieldType.TIMESTAMP: "<i8",
    FieldType.POSITION: "<i8",
    FieldType.FLOAT: "<f4",
    FieldType.DOUBLE: "<f8",
    FieldType.BOOL: "|b1",
    FieldType.STRING: "<i4",
}  # for a list, the type of its elements
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, eq=False)
class Column:
    """One field of n passages.

    Attributes:
        type: type of the field, or of a list's elements.
        present: `[n]`, which passages have a value.
        values: `[n]`, the values; of a list, those of all passages.
        words: sorted distinct texts, for fields of text.
        offsets: `[n + 1]`, for lists only.
    """

    type: FieldType
    present: Mask
    values: NDArray[Any]
    words: Sequence[str] | Strings = ()
    offsets: NDArray[np.int64] | None = None

    def value(self, row: int) -> Value:
        """Return the value of a passage."""
        if not self.present[row]:
            return None
        if self.offsets is not None:
            elements = self.values[self.offsets[row] : self.offsets[row + 1]].tolist()
            return [self.words[place] for place in elements] if self.type is FieldType.STRINGS else elements
        if self.type is FieldType.STRING:
            return self.words[int(self.values[row])]
        plain: Value = self.values[row].item()
        return plain

    def has_any(self, wanted: Sequence[object]) -> Mask:
        """Tell which rows' value is, or whose list contains, one of `wanted`."""
        if self.type.element is FieldType.STRING:
            places = [place for word in wanted if (place := self._place_of(str(word))) is not None]
            return self._rows(np.isin(self.values, np.array(places, np.int32)))
        return self._rows(np.isin(self.values, np.array(wanted, self.values.dtype)))

    def within(self, op: str, bound: int | float) -> Mask:
        """Tell which rows' value, or an element of whose list, is `op` `bound`."""
        return self._rows(_COMPARE[op](self.values, self.values.dtype.type(bound)))

    def _rows(self, found: Mask) -> Mask:
        """Tell which rows have one of the found values."""
        if self.offsets is None:
            return found & self.present
        count = np.concatenate([[0], np.cumsum(found)])
        some: Mask = count[self.offsets[1:]] > count[self.offsets[:-1]]
        return some

    def _place_of(self, word: str) -> int | None:
        low, high = 0, len(self.words)
        key = word.encode("utf-8", "surrogatepass")
        while low < high:
            middle = (low + high) // 2
            if self.words[middle].encode("utf-8", "surrogatepass") < key:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self.words) and self.words[low] == word else None

    def exists(self) -> Mask:
        """Tell which rows have a value."""
        if self.offsets is None:
            return np.asarray(self.present)
        filled: Mask = self.present & (np.diff(self.offsets) > 0)
        return filled

    def select(self, rows: NDArray[np.int64]) -> Column:
        """Return the column of `rows` only, in their order."""
        if self.offsets is None:
            return Column(self.type, self.present[rows], self.values[rows], self.words)
        sizes = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.repeat(self.offsets[:-1][rows] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Column(self.type, self.present[rows], self.values[places], self.words, offsets)


SegmentColumns = Mapping[str, Column]


def column_of(type_: FieldType, values: Sequence[Value]) -> Column:
    """Make a column in memory from one value per passage; None for no value."""
    present = np.array([value is not None for value in values], np.bool_)
    lists: list[list[Any]] = [value if isinstance(value, list) else [] if value is None else [value] for value in values]
    words: list[str] = []
    if type_.element is FieldType.STRING:
        words = _sorted_words(word for item in lists for word in item)
        place = {word: i for i, word in enumerate(words)}
        lists = [[place[word] for word in item] for item in lists]
    dtype = _DTYPES[type_.element]
    if not type_.many:
        missing = -1 if type_ is FieldType.STRING else 0
        return Column(type_, present, np.array([item[0] if item else missing for item in lists], dtype), words)
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in lists])]).astype(np.int64)
    return Column(type_, present, np.array([element for item in lists for element in item], dtype), words, offsets)


def _sorted_words(words: Any) -> list[str]:
    return sorted(set(words), key=lambda word: word.encode("utf-8", "surrogatepass"))


def join_columns(parts: Sequence[Column]) -> Column:
    """Join the columns of one field, one after the other (at least one)."""
    type_ = parts[0].type
    present = np.concatenate([part.present for part in parts])
    words: list[str] = []
    if type_.element is FieldType.STRING:
        words, values = _join_words(parts)
    else:
        values = np.concatenate([part.values for part in parts])
    offsets = None
    if type_.many:
        sizes = np.concatenate([np.diff(part.offsets) for part in parts if part.offsets is not None])
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Column(type_, present, values, words, offsets)


def _join_words(parts: Sequence[Column]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the words of all, and the values as places in them."""
    used = [np.unique(part.values[part.values >= 0]) for part in parts]
    words = _sorted_words(part.words[int(i)] for part, places in zip(parts, used, strict=True) for i in places)
    place = {word: i for i, word in enumerate(words)}
    values = []
    for part, places in zip(parts, used, strict=True):
        moved = np.full(len(part.words) + 1, -1, np.int32)  # the last one is for -1, no value
        moved[places] = [place[part.words[int(i)]] for i in places]
        values.append(moved[part.values])
    return words, np.concatenate(values)


def write_columns(folder: Path, schema: MetadataSchema, columns: SegmentColumns) -> dict[str, FileEntry]:
    """Write files `field-N.*.npy`; N is the field's place in the schema, as names may hold anything."""
    files: dict[str, FileEntry] = {}
    for number, name in enumerate(schema.fields):
        column = columns[name]
        arrays = {"present": column.present, "values": column.values}
        if column.offsets is not None:
            arrays["offsets"] = column.offsets
        for part, array in arrays.items():
            file = f"field-{number}.{part}.npy"
            files[file] = write_array(folder / file, array)
        if column.type.element is FieldType.STRING:
            writer = StringsWriter(folder, f"field-{number}.words")
            try:
                writer.append(list(column.words))
                files.update(writer.close())
            finally:
                writer.abandon()
    return files


def open_columns(root: Path, schema: MetadataSchema, files: Mapping[str, FileEntry], passages: int) -> dict[str, Column]:
    """Open the columns.

    Raises:
        LocalIndexError: if a file is missing or does not fit the others; the message names it.
    """
    columns: dict[str, Column] = {}
    for number, (name, type_) in enumerate(schema.fields.items()):
        stem = f"field-{number}"

        def load(part: str, dtype: str, stem: str = stem) -> NDArray[Any]:
            """Open one array."""
            return open_array(root, f"{stem}.{part}.npy", files[f"{stem}.{part}.npy"], dtype)

        present, values = load("present", "|b1"), load("values", _DTYPES[type_.element])
        words = Strings(root, f"{stem}.words", files) if type_.element is FieldType.STRING else ()
        offsets = load("offsets", "<i8") if type_.many else None
        if len(present) != passages or (offsets is None and len(values) != passages):
            raise LocalIndexError(f"{root} is damaged: {stem}.values.npy does not have {passages} passages")
        if offsets is not None and (len(offsets) != passages + 1 or offsets[0] != 0 or offsets[-1] != len(values)):
            raise LocalIndexError(f"{root} is damaged: {stem}.offsets.npy does not fit its values")
        columns[name] = Column(type_, present, values, words, offsets)
    return columns


def evaluate(where: Filter, columns: SegmentColumns, passages: int) -> Mask:
    """Tell which of the passages the filter selects, `[passages]`."""
    match where:
        case And(parts):
            mask = np.ones(passages, np.bool_)
            for part in parts:
                mask &= evaluate(part, columns, passages)
            return mask
        case Or(parts):
            mask = np.zeros(passages, np.bool_)
            for part in parts:
                mask |= evaluate(part, columns, passages)
            return mask
        case Near(field, lat, lng, km):
            found: Mask = near(columns[field].values, lat, lng, km) & columns[field].present
            return found
        case Not(part):
            return ~evaluate(part, columns, passages)
        case Exists(field):
            return columns[field].exists()
        case In(field, values):
            return columns[field].has_any(values)
        case Range(field, op, value):
            return columns[field].within(op, value)
