"""Timestamps and positions: as they are given, kept, compared and shown."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from late_interaction.errors import FilterError, MetadataError
from late_interaction.filters import Near, Range, parse_filter
from late_interaction.metadata import FieldType, MetadataSchema, coerce
from late_interaction.places_and_times import degrees, near, position
from late_interaction.plaid.store.columns import column_of, evaluate
from query.yql import filter_to_yql

SCHEMA = MetadataSchema(
    {"at": FieldType.TIMESTAMP, "place": FieldType.POSITION, "small": FieldType.INT, "single": FieldType.FLOAT}
)
OSLO, TRONDHEIM = {"lat": 59.9139, "lng": 10.7522}, {"lat": 63.4305, "lng": 10.3951}


@pytest.mark.parametrize(
    ("text", "milliseconds", "shown"),
    [
        ("1970-01-01", 0, "1970-01-01T00:00:00Z"),
        ("2026-12-24T18:00:00Z", 1798135200000, "2026-12-24T18:00:00Z"),
        ("2026-12-24T18:00:00+01:00", 1798131600000, "2026-12-24T17:00:00Z"),
        ("1969-12-31T23:59:59.999", -1, "1969-12-31T23:59:59.999000Z"),
        ("20261224T180000Z", 1798135200000, "2026-12-24T18:00:00Z"),
        ("2026-12-24 18:00", 1798135200000, "2026-12-24T18:00:00Z"),
        ("2026-12-24t18:00:00.1234567891z", 1798135200123, "2026-12-24T18:00:00.123000Z"),
        ("2026-12-24T18:00:00,5-0130", 1798140600500, "2026-12-24T19:30:00.500000Z"),
        ("2026-12-24T18+01", 1798131600000, "2026-12-24T17:00:00Z"),
    ],
)
def test_timestamps(text, milliseconds, shown):
    assert coerce("at", text, FieldType.TIMESTAMP) == milliseconds
    assert coerce("at", milliseconds, FieldType.TIMESTAMP) == milliseconds
    assert SCHEMA.shown({"at": milliseconds}) == {"at": shown}
    assert coerce("at", shown, FieldType.TIMESTAMP) == milliseconds


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_positions_are_kept_to_a_micro_degree(lat, lng):
    number = position("place", {"lat": lat, "lng": lng})
    assert degrees(number) == pytest.approx((lat, lng), abs=5.1e-7)
    assert position("place", number) == number
    assert position("place", SCHEMA.shown({"place": number})["place"]) == number


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (FieldType.TIMESTAMP, "yesterday"),
        (FieldType.TIMESTAMP, ""),
        (FieldType.TIMESTAMP, "2026"),
        (FieldType.TIMESTAMP, "2026-1-2"),
        (FieldType.TIMESTAMP, "2026-W52-4"),
        (FieldType.TIMESTAMP, "2026-1224"),
        (FieldType.TIMESTAMP, "2026-12-24T"),
        (FieldType.TIMESTAMP, "2026-12-24Z\n"),
        (FieldType.TIMESTAMP, "2026-12-24x18:00"),
        (FieldType.TIMESTAMP, "2026-12-24T24:00"),
        (FieldType.TIMESTAMP, "2026-12-24T23:59:60"),
        (FieldType.TIMESTAMP, "2026-02-30"),
        (FieldType.TIMESTAMP, "0000-01-01"),
        (FieldType.TIMESTAMP, "2026-12-24T18:00+24:00"),
        (FieldType.TIMESTAMP, "2026-12-24T18:00+01:60"),
        (FieldType.TIMESTAMP, "0001-01-01T00:00+01:00"),
        (FieldType.TIMESTAMP, "9999-12-31T23:59-01:00"),
        (FieldType.TIMESTAMP, "\u0662026-12-24"),
        (FieldType.TIMESTAMP, True),
        (FieldType.TIMESTAMP, 10**18),
        (FieldType.TIMESTAMP, 1.5),
        (FieldType.POSITION, {"lat": 91, "lng": 0}),
        (FieldType.POSITION, {"lat": 0, "lng": float("nan")}),
        (FieldType.POSITION, {"lat": True, "lng": 0}),
        (FieldType.POSITION, {"lat": 0}),
        (FieldType.POSITION, [1, 2]),
        (FieldType.POSITION, 2**63),
        (FieldType.INT, 2**31),
        (FieldType.INT, -(2**31)),
        (FieldType.FLOAT, 1e39),
        (FieldType.FLOAT, 10**400),
    ],
)
def test_values_that_are_none(type_, value):
    with pytest.raises(MetadataError, match="metadata field 'f'"):
        coerce("f", value, type_)


def test_single_precision_is_what_vespa_keeps():
    assert coerce("f", 0.1, FieldType.FLOAT) == float(np.float32(0.1))


def test_distances_are_those_on_the_ground():
    apart = 6371 * math.acos(
        math.sin(math.radians(OSLO["lat"])) * math.sin(math.radians(TRONDHEIM["lat"]))
        + math.cos(math.radians(OSLO["lat"]))
        * math.cos(math.radians(TRONDHEIM["lat"]))
        * math.cos(math.radians(OSLO["lng"] - TRONDHEIM["lng"]))
    )
    number = np.array([position("p", OSLO)])
    assert not near(number, **TRONDHEIM, km=0.99 * apart).any()
    assert near(number, **TRONDHEIM, km=1.01 * apart).all()
    beside = np.array([position("p", {"lat": 60.0, "lng": 10.0})])
    width = 2 * math.pi * 6371 * math.cos(math.radians(60)) / 360  # one degree of longitude there
    assert near(beside, 60.0, 11.0, 1.01 * width).all()
    assert not near(beside, 60.0, 11.0, 0.99 * width).any()


def test_filters():
    assert parse_filter({"at": {"$gte": "2026-01-01"}}, SCHEMA) == Range("at", ">=", 1767225600000)
    where = parse_filter({"place": {"$near": {**OSLO, "km": 5}}}, SCHEMA)
    assert where == Near("place", OSLO["lat"], OSLO["lng"], 5.0)
    assert filter_to_yql(where) == ('(geoLocation(place, 59.9139, 10.7522, "5.000000 km") and (present contains "place"))')
    values = [position("p", OSLO), None, position("p", TRONDHEIM)]
    columns = {"place": column_of(FieldType.POSITION, values)}
    assert evaluate(where, columns, 3).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"at": {"$gte": "soon"}}, "'soon' is not a time"),
        ({"place": OSLO}, "filter operator 'lat' on 'place' unknown"),
        ({"place": {"$eq": 5}}, r"\$near"),
        ({"at": {"$near": {**OSLO, "km": 5}}}, "needs a position field"),
        ({"place": {"$near": OSLO}}, r"\$near on 'place' takes"),
        ({"place": {"$near": {**OSLO, "km": 0}}}, "km must be a number above 0"),
        ({"place": {"$near": {"lat": 100, "lng": 0, "km": 1}}}, "is not a position"),
        ({"small": {"$gt": 0.5}}, "the field is int"),
    ],
)
def test_filters_that_are_refused(where, message):
    with pytest.raises(FilterError, match=message):
        parse_filter(where, SCHEMA)
