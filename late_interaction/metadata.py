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
    """Values are Vespa's own type names, but for `timestamp`, which is a long there.

    int, float, timestamp, lists of them, and position come from settings alone: they are not inferred. A timestamp is given as
    ISO 8601 text (without a zone: UTC) and kept as milliseconds since 1970; a position is given as {"lat", "lng"} in degrees
    and kept as one number of micro degrees, Vespa's own precision.
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
        """Whether a value is a list."""
        return self.value.startswith("array<")

    @property
    def element(self) -> FieldType:
        """Of a list: the type of what it holds; else the type itself."""
        return FieldType(self.value[len("array<") : -1]) if self.many else self

    @property
    def numeric(self) -> bool:
        return self in (FieldType.INT, FieldType.LONG, FieldType.FLOAT, FieldType.DOUBLE)

    @property
    def whole(self) -> bool:
        return self in (FieldType.INT, FieldType.LONG)

    @property
    def ordered(self) -> bool:
        """Whether ranges mean something: of a list, whether one of its elements is in the range."""
        return self.element.numeric or self.element is FieldType.TIMESTAMP

    @property
    def vespa(self) -> str:
        return self.value.replace(FieldType.TIMESTAMP.value, FieldType.LONG.value)


def coerce(name: str, value: object, type_: FieldType) -> Value:
    """`value` as `type_`. A whole number fits a double if it is exact there; texts are cleaned, or become timestamps; nothing
    else is converted. The smallest int and long are left out: Vespa keeps them for "no value".

    Raises: MetadataError naming the field, the value and the type.
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
                f"metadata field {name!r}: {value} is not exact as a double, which the field is: give it as text, or give the "
                "field whole numbers only"
            )
        return number
    if type_ is FieldType.TIMESTAMP:
        return timestamp(name, value)
    if type_ is FieldType.POSITION:
        return position(name, value)
    if type_.many and isinstance(value, (list, tuple)):
        return [coerce(name, item, type_.element) for item in value]  # type: ignore[return-value]  # all of one type
    raise MetadataError(f"metadata field {name!r}: {str(value)[:60]!r} is no {type_.value}")


def _finite(value: float, *, single: bool) -> float | None:
    """`value` as a number of 64 or 32 bits; None where it has no such."""
    try:
        number = struct.unpack("<f", struct.pack("<f", value))[0] if single else float(value)
    except (OverflowError, struct.error):
        return None
    return number if math.isfinite(number) else None


def plain_metadata(metadata: object, where: str = "") -> dict[str, Value]:
    """`metadata` as JSON holds it: numpy's values and tuples as Python's own and lists, times as ISO 8601 text, texts cleaned.

    Raises: MetadataError naming the field, after `where`, that has a value of another type or a number that is not finite.
    """
    if not isinstance(metadata, Mapping):
        raise MetadataError(f"{where}metadata must be a mapping of names to values, got {type(metadata).__name__}")
    try:
        return {_name(name, where): _plain(value, f"{where}metadata field {name!r}") for name, value in metadata.items()}
    except RecursionError:
        raise MetadataError(f"{where}metadata are nested too deeply") from None


def _name(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise MetadataError(f"{where}names of metadata are texts, got {type(name).__name__} {str(name)[:40]!r}")
    return clean_text(name)


def _inexact(value: object) -> bool:
    """Whether it is a whole number of 64 bits that no double is."""
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
        raise MetadataError(f"{where} is {value}: metadata are finite numbers")
    if isinstance(value, (np.ndarray, np.datetime64)):
        times = value.dtype.kind == "M"
        return _plain((value.astype("datetime64[us]") if times else value).tolist(), where)
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if isinstance(value, Mapping):
        return {_name(name, f"{where}: "): _plain(item, where) for name, item in value.items()}
    if isinstance(value, datetime.date):  # a datetime is a date, too
        return None if type(value).__name__ == "NaTType" else value.isoformat()  # of pandas: no time
    if isinstance(value, decimal.Decimal) and value.is_finite() and decimal.Decimal(repr(float(value))) == value:
        return float(value)
    raise MetadataError(
        f"{where} is {type(value).__name__}: use text, a number, true/false, a time, or a list of texts or of numbers"
    )


@dataclass(frozen=True)
class MetadataSchema:
    """Names and types of the metadata fields of one index, in a fixed order."""

    fields: Mapping[str, FieldType]

    def to_json(self) -> dict[str, str]:
        return {name: type_.value for name, type_ in self.fields.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> MetadataSchema:
        try:
            return cls({str(name): FieldType(type_) for name, type_ in data.items()})
        except ValueError as error:
            known = ", ".join(t.value for t in FieldType)
            raise MetadataError(f"metadata type unknown: {error}; known types: {known}") from None

    def check(self, metadata: Mapping[str, object]) -> dict[str, Value]:
        """`metadata` with every value typed; nulls and empty lists, which are no value, left out.

        Raises: MetadataError on an unknown field or a value of another type.
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
        """`metadata` as it was given: timestamps as ISO 8601 text in UTC, positions in degrees."""
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
    """Infers a MetadataSchema from documents as they stream by. types: of fields that are not inferred."""

    def __init__(self, types: Mapping[str, FieldType] | None = None) -> None:
        self._given = dict(types or {})
        self._types: dict[str, FieldType] = {}
        self._seen_in: dict[str, str] = {}
        self._inexact: dict[str, str] = {}  # by field, the first document with a whole number that no double is

    def add(self, document_id: str, metadata: Mapping[str, object]) -> None:
        """Raises: MetadataError where a value has no type here, or another than an earlier document's."""
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
                    f"metadata field {name!r} has fractions, and in document {self._inexact[name]!r} a whole number that is "
                    "not exact as a double: give the field as text, or whole numbers only"
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
        hint = f". Where it holds token vectors, [columns] vectors = {name!a} in feed.toml says so" if rows else ""
        raise MetadataError(
            f"metadata field {name!r} of document {document_id!r} is {type(value).__name__}: "
            f"use text, a number, true/false, or a list of texts or of numbers{hint}"
        )

    def schema(self) -> MetadataSchema:
        return MetadataSchema(dict(sorted({**self._types, **self._given}.items())))

    @classmethod
    def of(
        cls, documents: Iterable[tuple[str, Mapping[str, object]]], types: Mapping[str, FieldType] | None = None
    ) -> MetadataSchema:
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
