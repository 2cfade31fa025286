"""The filter language: a dict in, a small checked tree out. Backends compile the tree (YQL, masks).

    {"year": {"$gte": 2020}, "lang": {"$in": ["en", "de"]}, "$or": [{"kind": "class"}, {"$not": {"kind": "module"}}]}

Keys of one dict are joined by "and". A missing value matches no comparison: `$eq`, `$in` and the ranges do not select it;
`$ne`, `$nin` and `$not` are complements, so they do. On a list field, `$eq` and `$in` test whether the list contains the
value, and a range whether any of its elements is in it. A timestamp is compared with ISO 8601 text, a position by distance:

    {"published": {"$gte": "2026-01-01"}, "place": {"$near": {"lat": 63.43, "lng": 10.39, "km": 5}}}

All operators share one rule for numbers: from Python or numpy, finite, never true or false. A field of whole numbers is
compared with whole numbers, 4.0 among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from late_interaction.errors import FilterError, MetadataError
from late_interaction.metadata import FieldType, MetadataSchema, coerce

__all__ = ["And", "Exists", "Filter", "In", "Near", "Not", "Or", "Range", "parse_filter", "parse_where", "where_from_json"]

Scalar: TypeAlias = str | int | float | bool
MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_KM = 10_000


@dataclass(frozen=True, slots=True)
class In:
    """The field has, or its list contains, one of `values` (not empty, all of the field's element type)."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field's value, or any element of its list, is `op` (one of < <= > >=) `value`."""

    field: str
    op: str
    value: int | float


@dataclass(frozen=True, slots=True)
class Near:
    """The field's position is within `km` of latitude and longitude in degrees."""

    field: str
    lat: float
    lng: float
    km: float


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value."""

    field: str


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = In | Range | Near | Exists | Not | And | Or

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$near")


def where_from_json(text: str) -> dict[str, object]:
    """Parse a filter written as JSON, to be checked by `parse_filter`.

    Raises:
        FilterError: if it is not a JSON object, or a key occurs twice in one of its objects.
    """
    try:
        where = json.loads(text, object_pairs_hook=_once, parse_constant=_not_a_number)
    except (ValueError, RecursionError) as error:
        raise FilterError(f'the filter is not valid JSON ({error}); write it like {{"year": {{"$gte": 2020}}}}') from None
    if not isinstance(where, dict):
        raise FilterError(f'the filter must be a JSON object like {{"year": {{"$gte": 2020}}}}, got {text[:60]!r}')
    return where


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise FilterError(f'filter key {twice!r} occurs twice in one object; join its conditions with "$and", or give it once')
    return whole


def _not_a_number(name: str) -> object:
    raise FilterError(f"the filter has {name}, which JSON does not allow")


def parse_where(where: Mapping[str, object] | None, schema: MetadataSchema) -> Filter | None:
    """Parse a filter like `parse_filter`; return None for no filter or an empty one."""
    if where is None:
        return None
    parsed = parse_filter(where, schema)
    return None if parsed == And(()) else parsed


def parse_filter(where: Mapping[str, object], schema: MetadataSchema) -> Filter:
    """Check `where` against the metadata fields of the index.

    Args:
        where: the filter.
        schema: the metadata fields.

    Raises:
        FilterError: if a field or operator is unknown, a value has the wrong type, or nesting exceeds 32 levels.
    """
    return _parse_dict(where, schema, 0)


def _parse_dict(where: object, schema: MetadataSchema, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise FilterError(f"the filter is nested deeper than {MAX_DEPTH} levels")
    if not isinstance(where, Mapping):
        raise FilterError(f'the filter must be an object like {{"field": value}}, got {str(where)[:60]!r}')
    parts: list[Filter] = []
    for key, value in where.items():
        if not isinstance(key, str):
            raise FilterError(f"filter keys must be strings, got {key!r}")
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
    if isinstance(condition, (list, tuple, np.ndarray)):
        raise FilterError(f'filter on {name!r} is a list; to match any of its values, write {{"$in": [...]}}')
    if not isinstance(condition, Mapping):
        condition = {"$eq": condition}
    if not condition:
        raise FilterError(f"filter on {name!r} has no operator; known: {' '.join(_OPERATORS)}")
    return [_parse_operator(name, type_, str(op), _plain(value)) for op, value in condition.items()]


def _plain(value: object) -> object:
    """Convert a numpy value to Python's own, and a list, tuple or array to a list of them."""
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist()) if isinstance(value, np.ndarray) else value.item()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _parse_operator(name: str, type_: FieldType, op: str, value: object) -> Filter:
    if op == "$near":
        return _near(name, type_, value)
    if type_ is FieldType.POSITION and op in (*_RANGES, "$eq", "$ne", "$in", "$nin"):
        raise FilterError(f"filter {op} on {name!r}: a position field takes only $near")
    if op in ("$eq", "$ne"):
        hint = " (use $in for a list)" if isinstance(value, list) else ""
        one: Filter = In(name, (_scalar(name, type_, op, value, hint),))
        return one if op == "$eq" else Not(one)
    if op in ("$in", "$nin"):
        if not isinstance(value, list) or len(value) > MAX_VALUES:
            raise FilterError(f"filter {op} on {name!r} takes a list of at most {MAX_VALUES} values")
        some: Filter = In(name, tuple(dict.fromkeys(_scalar(name, type_, op, item) for item in value)))
        return some if op == "$in" else Not(some)
    if op in _RANGES:
        if not type_.ordered:
            text = type_ is FieldType.STRING
            hint = f"; dates can be compared in a new index made with feed --type {name}=timestamp" if text else ""
            raise FilterError(f"filter {op} on {name!r} needs a field of numbers or timestamps, it is {type_.value}{hint}")
        bound = _scalar(name, type_, op, value)
        assert isinstance(bound, (int, float))  # of an ordered field
        return Range(name, _RANGES[op], bound)
    if op == "$exists":
        if not isinstance(value, bool):
            raise FilterError(f"filter $exists on {name!r} takes true or false")
        return Exists(name) if value else Not(Exists(name))
    raise FilterError(f"filter operator {op!r} on {name!r} unknown; known: {' '.join(_OPERATORS)}")


def _near(name: str, type_: FieldType, value: object) -> Near:
    if type_ is not FieldType.POSITION:
        raise FilterError(f"filter $near on {name!r} needs a position field, but the field is {type_.value}")
    if not isinstance(value, Mapping) or set(value) != {"lat", "lng", "km"}:
        raise FilterError(f'filter $near on {name!r} takes {{"lat": degrees, "lng": degrees, "km": distance}}')
    lat, lng, km = (_plain(value[part]) for part in ("lat", "lng", "km"))
    _typed(name, type_, {"lat": lat, "lng": lng})
    if isinstance(km, bool) or not isinstance(km, (int, float)) or not 0 < km <= MAX_KM:
        raise FilterError(f"filter $near on {name!r}: km must be a number above 0, at most {MAX_KM}, got {str(km)[:60]!r}")
    return Near(name, float(lat), float(lng), float(km))  # type: ignore[arg-type]  # a position was just made of them


def _scalar(name: str, type_: FieldType, op: str, value: object, hint: str = "") -> Scalar:
    """Convert what a value of the field, or an element of its list, is compared with."""
    element = type_.element
    if element.numeric and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise FilterError(
            f"filter {op} on {name!r} does not fit the field, which is {type_.value}: got {str(value)[:60]!r}{hint}"
        )
    if (element.whole or element is FieldType.TIMESTAMP) and isinstance(value, float):
        if not value.is_integer():
            raise FilterError(f"filter {op} on {name!r}: {value} is not a whole number, but the field is {type_.value}")
        value = int(value)
    try:
        typed = _typed(name, element, value)
    except FilterError as error:
        raise FilterError(f"{error}{hint}") from None
    assert isinstance(typed, (str, int, float, bool))  # element types are never lists or null
    return typed


def _typed(name: str, type_: FieldType, value: object) -> object:
    try:
        return coerce(name, value, type_)
    except MetadataError as error:
        raise FilterError(f"filter: {error}") from None
