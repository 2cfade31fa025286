"""The filter language: a dict in, a small checked tree out. Backends compile the tree (YQL, masks).

    {"year": {"$gte": 2020}, "lang": {"$in": ["en", "de"]}, "$or": [{"kind": "class"}, {"$not": {"kind": "module"}}]}

Keys of one dict are joined by "and". A missing value compares to nothing: `$eq`, `$in` and the ranges do not select it;
`$ne`, `$nin` and `$not` are the complements of what they negate, so they do. On a list field `$eq` and `$in` ask whether
the list contains the value, and a range whether one of its elements is in it. A timestamp is compared with ISO 8601 text; a
position is asked for by distance:

    {"published": {"$gte": "2026-01-01"}, "place": {"$near": {"lat": 63.43, "lng": 10.39, "km": 5}}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from late_interaction.errors import FilterError, MetadataError
from late_interaction.metadata import FieldType, MetadataSchema, coerce

__all__ = ["And", "Exists", "Filter", "In", "Near", "Not", "Or", "Range", "parse_filter"]

Scalar: TypeAlias = str | int | float | bool
MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_KM = 10_000


@dataclass(frozen=True, slots=True)
class In:
    """The field has, or its list contains, one of `values` (never empty of type: all are of the field's element type)."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field is, or one element of its list is, `op` (one of < <= > >=) `value`."""

    field: str
    op: str
    value: int | float


@dataclass(frozen=True, slots=True)
class Near:
    """A position within `km` of latitude and longitude in degrees."""

    field: str
    lat: float
    lng: float
    km: float


@dataclass(frozen=True, slots=True)
class Exists:
    field: str


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]


Filter: TypeAlias = In | Range | Near | Exists | Not | And | Or

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$near")


def parse_filter(where: Mapping[str, object], schema: MetadataSchema) -> Filter:
    """Checks `where` against the metadata fields of the index.

    Raises: FilterError on an unknown field or operator, a value of another type, or nesting past 32 levels.
    """
    return _parse_dict(where, schema, 0)


def _parse_dict(where: object, schema: MetadataSchema, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise FilterError(f"filter nested deeper than {MAX_DEPTH} levels")
    if not isinstance(where, Mapping):
        raise FilterError(f'filter must be an object like {{"field": value}}, got {str(where)[:60]!r}')
    parts: list[Filter] = []
    for key, value in where.items():
        if not isinstance(key, str):
            raise FilterError(f"filter keys are texts, got {key!r}")
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise FilterError(f"filter {key} takes a list of at least one filter")
            children = tuple(_parse_dict(item, schema, depth + 1) for item in value)
            parts.append(And(children) if key == "$and" else Or(children))
        elif key == "$not":
            parts.append(Not(_parse_dict(value, schema, depth + 1)))
        elif key.startswith("$"):
            raise FilterError(f"filter operator {key!r} unknown here; known: $and $or $not, or a field name")
        else:
            parts.extend(_parse_field(key, value, schema))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _parse_field(name: str, condition: object, schema: MetadataSchema) -> list[Filter]:
    type_ = schema.fields.get(name)
    if type_ is None:
        known = ", ".join(schema.fields) or "none"
        raise FilterError(f"filter field {name!r} unknown; the fields of this index: {known}")
    if not isinstance(condition, Mapping):
        condition = {"$eq": condition}
    if not condition:
        raise FilterError(f"filter on {name!r} has no operator; known: {' '.join(_OPERATORS)}")
    return [_parse_operator(name, type_, str(op), value) for op, value in condition.items()]


def _parse_operator(name: str, type_: FieldType, op: str, value: object) -> Filter:
    if op == "$near":
        return _near(name, type_, value)
    if type_ is FieldType.POSITION and op in (*_RANGES, "$eq", "$ne", "$in", "$nin"):
        raise FilterError(f"filter {op} on {name!r}: a position is asked for with $near")
    if op in ("$eq", "$ne"):
        one: Filter = In(name, (_scalar(name, type_, value),))
        return one if op == "$eq" else Not(one)
    if op in ("$in", "$nin"):
        if not isinstance(value, (list, tuple)) or len(value) > MAX_VALUES:
            raise FilterError(f"filter {op} on {name!r} takes a list of at most {MAX_VALUES} values")
        some: Filter = In(name, tuple(dict.fromkeys(_scalar(name, type_, item) for item in value)))
        return some if op == "$in" else Not(some)
    if op in _RANGES:
        if not type_.ordered:
            raise FilterError(f"filter {op} on {name!r} needs a number field, it is {type_.value}")
        if type_.element is FieldType.TIMESTAMP:
            moment = _typed(name, type_.element, value)
            assert isinstance(moment, int)
            return Range(name, _RANGES[op], moment)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise FilterError(f"filter {op} on {name!r} needs a number, got {str(value)[:60]!r}")
        return Range(name, _RANGES[op], _bound(name, type_.element, _RANGES[op], value))
    if op == "$exists":
        if not isinstance(value, bool):
            raise FilterError(f"filter $exists on {name!r} takes true or false")
        return Exists(name) if value else Not(Exists(name))
    raise FilterError(f"filter operator {op!r} on {name!r} unknown; known: {' '.join(_OPERATORS)}")


def _near(name: str, type_: FieldType, value: object) -> Near:
    if type_ is not FieldType.POSITION:
        raise FilterError(f"filter $near on {name!r} needs a position field, it is {type_.value}")
    if not isinstance(value, Mapping) or set(value) != {"lat", "lng", "km"}:
        raise FilterError(f'filter $near on {name!r} takes {{"lat": degrees, "lng": degrees, "km": distance}}')
    _typed(name, type_, {"lat": value["lat"], "lng": value["lng"]})
    km = value["km"]
    if isinstance(km, bool) or not isinstance(km, (int, float)) or not 0 < km <= MAX_KM:
        raise FilterError(f"filter $near on {name!r}: km must be a number above 0, at most {MAX_KM}, got {str(km)[:60]!r}")
    return Near(name, float(value["lat"]), float(value["lng"]), float(km))


def _bound(name: str, type_: FieldType, op: str, value: int | float) -> int | float:
    if type_.whole and isinstance(value, float) and not value.is_integer():
        raise FilterError(f"filter on {name!r}: {value} is no whole number, and the field is {type_.value}")
    whole = int(value) if type_.whole and isinstance(value, float) else value
    typed = _typed(name, type_, whole)
    assert isinstance(typed, (int, float))  # a numeric FieldType has just been coerced
    return typed


def _scalar(name: str, type_: FieldType, value: object) -> Scalar:
    typed = _typed(name, type_.element, value)
    assert isinstance(typed, (str, int, float, bool))  # element types are never lists or null
    return typed


def _typed(name: str, type_: FieldType, value: object) -> object:
    try:
        return coerce(name, value, type_)
    except MetadataError as error:
        raise FilterError(f"filter: {error}") from None
