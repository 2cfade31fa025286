"""Filters on columns against their definition in plain Python, over random metadata."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid.store.columns import column_of, evaluate, join_columns, open_columns, write_columns

SCHEMA = MetadataSchema(
    {
        "s": FieldType.STRING,
        "l": FieldType.LONG,
        "d": FieldType.DOUBLE,
        "b": FieldType.BOOL,
        "t": FieldType.STRINGS,
        "ls": FieldType.LONGS,
        "ds": FieldType.DOUBLES,
        "is": FieldType.INTS,
        "fs": FieldType.FLOATS,
    }
)
WORDS = st.sampled_from(["", "a", "A", "b", "ä", "日本", "\ud800", "ab"])
LONGS = st.sampled_from([0, 1, -1, 7, 2**62, -(2**63) + 1, 2**63 - 1, 2**53 + 1])
DOUBLES = st.sampled_from([0.0, 0.5, -1.5, 1e300, 7.0])
SMALL = st.sampled_from([0, 1, -1, 7, 2**31 - 1])
SINGLES = st.sampled_from([0.0, 0.5, -1.5, 7.0])
ELEMENTS = {"t": WORDS, "ls": LONGS, "ds": DOUBLES, "is": SMALL, "fs": SINGLES}
VALUES = {"s": WORDS, "l": LONGS, "d": DOUBLES, "b": st.booleans()}
VALUES |= {name: st.lists(element, max_size=3) for name, element in ELEMENTS.items()}
METADATA = st.fixed_dictionaries({}, optional=VALUES)


def conditions():
    choices = []
    for field, values in VALUES.items():
        element = ELEMENTS.get(field, values)
        options = [st.fixed_dictionaries({op: element}) for op in ("$eq", "$ne")]
        options += [st.fixed_dictionaries({op: st.lists(element, max_size=3)}) for op in ("$in", "$nin")]
        options += [st.fixed_dictionaries({"$exists": st.booleans()}), element]
        if SCHEMA.fields[field].ordered:
            options += [st.fixed_dictionaries({op: element}) for op in ("$gt", "$gte", "$lt", "$lte")]
        choices += [st.fixed_dictionaries({field: option}) for option in options]
    return st.one_of(choices)


FILTERS = st.recursive(
    conditions(),
    lambda part: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(part, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(part, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": part}),
    ),
    max_leaves=6,
)


def selects(where, metadata):
    """The definition; an empty list is no value."""
    for key, value in where.items():
        if key == "$and":
            ok = all(selects(part, metadata) for part in value)
        elif key == "$or":
            ok = any(selects(part, metadata) for part in value)
        elif key == "$not":
            ok = not selects(value, metadata)
        else:
            condition = value if isinstance(value, dict) else {"$eq": value}
            ok = all(holds(metadata.get(key), op, wanted) for op, wanted in condition.items())
        if not ok:
            return False
    return True


def holds(value, op, wanted):
    if op in ("$ne", "$nin"):
        return not holds(value, {"$ne": "$eq", "$nin": "$in"}[op], wanted)
    values = [] if value is None else value if isinstance(value, list) else [value]
    if op == "$exists":
        return bool(values) == wanted
    compare = {
        "$eq": lambda v: v == wanted,
        "$in": lambda v: v in wanted,
        "$gt": lambda v: v > wanted,
        "$gte": lambda v: v >= wanted,
        "$lt": lambda v: v < wanted,
        "$lte": lambda v: v <= wanted,
    }[op]
    return any(map(compare, values))


def columns_of(metadata):
    return {name: column_of(type_, [m.get(name) for m in metadata]) for name, type_ in SCHEMA.fields.items()}


@settings(max_examples=300, deadline=None)
@given(st.lists(METADATA, max_size=12), FILTERS)
def test_filters_select_what_their_definition_says(metadata, where):
    mask = evaluate(parse_filter(where, SCHEMA), columns_of(metadata), len(metadata))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [selects(where, m) for m in metadata]


@settings(max_examples=60, deadline=None)
@given(st.lists(METADATA, max_size=8), st.lists(METADATA, max_size=8), st.data())
def test_values_survive_files_selection_and_joining(tmp_path_factory, first, second, data):
    folder = tmp_path_factory.mktemp("c")
    files = write_columns(folder, SCHEMA, columns_of(first))
    opened = open_columns(folder, SCHEMA, files, len(first))
    rows = data.draw(st.lists(st.integers(0, len(first) - 1), unique=True).map(sorted)) if first else []
    places = np.array(rows, np.int64)
    other = columns_of(second)
    joined = {name: join_columns([column.select(places), other[name]]) for name, column in opened.items()}
    expected = [first[row] for row in rows] + second
    for name, column in joined.items():
        assert [column.value(i) for i in range(len(expected))] == [m.get(name) for m in expected]


@pytest.mark.parametrize("where", [{"l": {"$gt": 2**53}}, {"l": 2**53 + 1}])
def test_longs_are_compared_exactly(where):
    """2^53 and 2^53 + 1 are one and the same double."""
    mask = evaluate(parse_filter(where, SCHEMA), columns_of([{"l": 2**53}, {"l": 2**53 + 1}]), 2)
    assert mask.tolist() == [False, True]
