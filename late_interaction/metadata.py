"""Typed metadata: one set of types for local columns and Vespa attributes."""

from __future__ import annotations

import datetime
import decimal
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

from late_interaction.errors import MetadataError
from late_interaction.places_and_times import position, show_position, show_timestamp, timestamp
from late_interaction.text import clean_text

__all__ = ["FieldType", "MetadataSchema", "SchemaInference", "Value", "coerce", "plain_metadata"]

Value: TypeAlias = str | int | float | bool | list[str] | list[int] | list[float] | dict[str, float] | None


class FieldType(str, Enum):
    """The type of a metadata field. Values are Vespa's type names, except `timestamp`, which is a long in Vespa.

    int, float, timestamp, lists of them, and position are never inferred; they come from settings. A timestamp is given as
    ISO 8601 text (UTC if it has no zone) and stored as milliseconds since 1970. A position is given as {"lat", "lng"} in
    degrees and stored as one number of micro degrees, which is Vespa's own precision.
    """

    STRING = "string"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    BOOL = "bool"
    STRINGS = "array<string>"
    INTS = "array<int>"
    LONGS = "array<long>"
    FLOATS = "array<float>"
    DOUBLES = "array<double>"
    TIMESTAMP = "timestamp"
    TIMESTAMPS = "array<timestamp>"
    POSITION = "position"

    @property
    def many(self) -> bool:
        """Tell whether a value is a list."""
        return self.value.startswith("array<")

    @property
    def element(self) -> FieldType:
        """Return the type of a list's elements; the type itself if it is not a list."""
        return FieldType(self.value[len("array<") : -1]) if self.many else self

    @property
    def numeric(self) -> bool:
        """Tell whether values, or a list's elements, are numbers."""
        return self in (FieldType.INT, FieldType.LONG, FieldType.FLOAT, FieldType.DOUBLE)

    @property
    def whole(self) -> bool:
        """Tell whether values, or a list's elements, are whole numbers."""
        return self in (FieldType.INT, FieldType.LONG)

    @property
    def ordered(self) -> bool:
        """Tell whether ranges apply; for a list, whether one of its elements is in the range."""
        return self.element.numeric or self.element is FieldType.TIMESTAMP

    @property
    def vespa(self) -> str:
        """Return the type of the field in Vespa."""
        return self.value.replace(FieldType.TIMESTAMP.value, FieldType.LONG.value)


def coerce(name: str, value: object, type_: FieldType) -> Value:
    """Return `value` as `type_`.

    A whole number fits a double if the double is exact; texts are cleaned, or become timestamps; nothing else is converted.
    The smallest int and long are rejected: Vespa uses them for "no value".

    Args:
        name: name of the field, for error messages.
        value: the value.
        type_: the type of the field.

    Raises:
        MetadataError: if the value does not fit; the message names the field, the value and the type.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = _plain(value, f"metadata field {name!r}")
    if type_ is FieldType.STRING and isinstance(value, str):
        return clean_text(value)
    if type_ is FieldType.BOOL and isinstance(value, bool):
        return value
    if type_.whole and isinstance(value, int) and not isinstance(value, bool):
        bits = 32 if type_ is FieldType.INT else 64
        if -(2 ** (bits - 1)) < value < 2 ** (bits - 1):
            return value
        raise MetadataError(f"metadata field {name!r}: {value} does not fit in {bits} bits")
    if type_.numeric and not type_.whole and isinstance(value, (int, float)) and not isinstance(value, bool):
        number = _finite(value, single=type_ is FieldType.FLOAT)
        if number is None:
            raise MetadataError(f"metadata field {name!r}: {str(value)[:40]} is not a finite number")
        if type_ is FieldType.DOUBLE and number != value:
            raise MetadataError(
                f"metadata field {name!r}: {value} cannot be stored exactly as a double, the type of the field; use "
                f"text, or only whole numbers"
            )
        return number
    if type_ is FieldType.TIMESTAMP:
        return timestamp(name, value)
    if type_ is FieldType.POSITION:
        return position(name, value)
    if type_.many and isinstance(value, (list, tuple)):
        return [coerce(name, item, type_.element) for item in value]  # type: ignore[return-value]  # all of one type
    raise MetadataError(f"metadata field {name!r}: {str(value)[:60]!r} is not of type {type_.value}")


def _finite(value: float, *, single: bool) -> float | None:
    """Return `value` as a number of 64 or 32 bits; None if it is not finite there."""
    try:
        number = struct.unpack("<f", struct.pack("<f", value))[0] if single else float(value)
    except (OverflowError, struct.error):
        return None
    return number if math.isfinite(number) else None


def plain_metadata(metadata: object, where: str = "") -> dict[str, Value]:
    """Return `metadata` as JSON values.

    numpy values become Python's own, tuples become lists, times become ISO 8601 text, and texts are cleaned.

    Args:
        metadata: value by field.
        where: text that precedes the field's name in error messages.

    Raises:
        MetadataError: if a value has another type or is not finite; the message names the field.
    """
    if not isinstance(metadata, Mapping):
        raise MetadataError(f"{where}metadata must be a mapping of names to values, got {type(metadata).__name__}")
    try:
        return {_name(name, where): _plain(value, f"{where}metadata field {name!r}") for name, value in metadata.items()}
    except RecursionError:
        raise MetadataError(f"{where}metadata are nested too deeply") from None


def _name(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise MetadataError(f"{where}metadata field names must be strings, got {type(name).__name__} {str(name)[:40]!r}")
    return clean_text(name)


def _inexact(value: object) -> bool:
    """Tell whether it is a whole number of 64 bits that no double equals."""
    return isinstance(value, int) and 1 << 53 < abs(value) < 1 << 63 and float(value) != value


def _no_value(value: object) -> bool:
    empty = not value.size if isinstance(value, np.ndarray) else isinstance(value, (list, tuple)) and not value
    return value is None or empty


def _plain(value: object, where: str) -> Any:
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        if math.isfinite(value):
            return float(value)
        raise MetadataError(f"{where} is {value}, but numbers must be finite")
    if isinstance(value, (np.ndarray, np.datetime64)):
        times = value.dtype.kind == "M"
        return _plain((value.astype("datetime64[us]") if times else value).tolist(), where)
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if isinstance(value, Mapping):
        return {_name(name, f"{where}: "): _plain(item, where) for name, item in value.items()}
    if isinstance(value, datetime.date):  # a datetime is also a date
        return None if type(value).__name__ == "NaTType" else value.isoformat()  # pandas' missing time
    if isinstance(value, decimal.Decimal) and value.is_finite() and decimal.Decimal(repr(float(value))) == value:
        return float(value)
    raise MetadataError(
        f"{where} is {type(value).__name__}: use text, a number, true/false, a time, or a list of texts or of numbers"
    )


@dataclass(frozen=True)
class MetadataSchema:
    """Names and types of the metadata fields of one index, in a fixed order.

    Attributes:
        fields: type by name.
    """

    fields: Mapping[str, FieldType]

    def to_json(self) -> dict[str, str]:
        """Return the name of each field's type."""
        return {name: type_.value for name, type_ in self.fields.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> MetadataSchema:
        """Parse the output of `to_json`.

        Raises:
            MetadataError: if a type is unknown.
        """
        try:
            return cls({str(name): FieldType(type_) for name, type_ in data.items()})
        except ValueError as error:
            known = ", ".join(t.value for t in FieldType)
            raise MetadataError(f"metadata type unknown: {error}; known types: {known}") from None

    def check(self, metadata: Mapping[str, object]) -> dict[str, Value]:
        """Return `metadata` with every value typed; nulls and empty lists are dropped, as they are no value.

        Raises:
            MetadataError: if a field is unknown or a value has the wrong type.
        """
        checked: dict[str, Value] = {}
        for name, value in metadata.items():
            if _no_value(value):
                continue
            type_ = self.fields.get(name)
            if type_ is None:
                known = ", ".join(self.fields) or "none"
                raise MetadataError(f"metadata field {name!r} is not in the index (its fields: {known})")
            checked[name] = coerce(name, value, type_)
        return checked

    def shown(self, metadata: Mapping[str, Value]) -> dict[str, Value]:
        """Return `metadata` as it was given: timestamps as ISO 8601 text in UTC, positions in degrees."""
        found: dict[str, Value] = {}
        for name, value in metadata.items():
            type_ = self.fields[name]
            if type_ is FieldType.TIMESTAMP and isinstance(value, int):
                found[name] = show_timestamp(value)
            elif type_ is FieldType.TIMESTAMPS and isinstance(value, list):
                found[name] = [show_timestamp(int(item)) for item in value]
            elif type_ is FieldType.POSITION and isinstance(value, int):
                found[name] = show_position(value)
            else:
                found[name] = value
        return found


class SchemaInference:
    """Infers a MetadataSchema from a stream of documents."""

    def __init__(self, types: Mapping[str, FieldType] | None = None) -> None:
        self._given = dict(types or {})
        self._types: dict[str, FieldType] = {}
        self._seen_in: dict[str, str] = {}
        self._inexact: dict[str, str] = {}  # by field, the first document with a whole number that no double equals

    def add(self, document_id: str, metadata: Mapping[str, object]) -> None:
        """Take one document's metadata into account.

        Args:
            document_id: id of the document.
            metadata: its metadata.

        Raises:
            MetadataError: if a value has no type here, or a type that differs from an earlier document's.
        """
        for name, value in metadata.items():
            if _no_value(value) or name in self._given:
                continue
            type_ = self._type_of(name, value, document_id)
            known = self._types.setdefault(name, type_)
            self._seen_in.setdefault(name, document_id)
            if any(map(_inexact, value if isinstance(value, list) else [value])):
                self._inexact.setdefault(name, document_id)
            numbers = known.many == type_.many and known.element.numeric and type_.element.numeric
            if numbers and known is not type_:
                self._types[name] = FieldType.DOUBLES if type_.many else FieldType.DOUBLE
            if self._types[name].element is FieldType.DOUBLE and name in self._inexact:
                raise MetadataError(
                    f"metadata field {name!r} has fractions, but document {self._inexact[name]!r} has a whole "
                    f"number that a double cannot hold exactly; use text, or only whole numbers"
                )
            if numbers or known is type_:
                continue
            raise MetadataError(
                f"metadata field {name!r} is {known.value} in document {self._seen_in[name]!r} "
                f"but {type_.value} in {document_id!r}; give it one type"
            )

    @staticmethod
    def _type_of(name: str, value: object, document_id: str) -> FieldType:
        if isinstance(value, list):
            found = {_plain_type(item) for item in value}
            if found == {FieldType.LONG, FieldType.DOUBLE}:
                return FieldType.DOUBLES
            if len(found) == 1 and (listed := _LISTS.get(found.pop())):
                return listed
        elif type_ := _plain_type(value):
            return type_
        rows = isinstance(value, list) and value and isinstance(value[0], list)
        hint = f"; if it holds token vectors, set [columns] vectors = {name!a} in feed.toml" if rows else ""
        raise MetadataError(
            f"metadata field {name!r} of document {document_id!r} is {type(value).__name__}: "
            f"use text, a number, true/false, or a list of texts or of numbers{hint}"
        )

    def schema(self) -> MetadataSchema:
        """Return the schema inferred so far."""
        return MetadataSchema(dict(sorted({**self._types, **self._given}.items())))

    @classmethod
    def of(
        cls, documents: Iterable[tuple[str, Mapping[str, object]]], types: Mapping[str, FieldType] | None = None
    ) -> MetadataSchema:
        """Return the schema of all `documents`."""
        inference = cls(types)
        for document_id, metadata in documents:
            inference.add(document_id, metadata)
        return inference.schema()


_LISTS: dict[FieldType | None, FieldType] = {
    FieldType.STRING: FieldType.STRINGS,
    FieldType.LONG: FieldType.LONGS,
    FieldType.DOUBLE: FieldType.DOUBLES,
}


def _plain_type(value: object) -> FieldType | None:
    types = ((bool, FieldType.BOOL), (str, FieldType.STRING), (int, FieldType.LONG), (float, FieldType.DOUBLE))
    return next((type_ for kind, type_ in types if isinstance(value, kind)), None)
