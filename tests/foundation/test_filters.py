import numpy as np
import pytest

from late_interaction.errors import FilterError
from late_interaction.filters import And, Exists, In, Not, Or, Range, parse_filter, parse_where, where_from_json
from late_interaction.metadata import FieldType, MetadataSchema

SCHEMA = MetadataSchema(
    {
        "year": FieldType.LONG,
        "price": FieldType.DOUBLE,
        "lang": FieldType.STRING,
        "tags": FieldType.STRINGS,
        "open": FieldType.BOOL,
        "years": FieldType.LONGS,
        "ratios": FieldType.FLOATS,
        "seen": FieldType.TIMESTAMPS,
    }
)


@pytest.mark.parametrize(
    ("where", "tree"),
    [
        ({"lang": "en"}, In("lang", ("en",))),
        ({"lang": {"$ne": "en"}}, Not(In("lang", ("en",)))),
        ({"lang": {"$in": ["en", "de", "en"]}}, In("lang", ("en", "de"))),
        ({"lang": {"$in": []}}, In("lang", ())),
        ({"year": {"$gte": 2000, "$lt": 2010}}, And((Range("year", ">=", 2000), Range("year", "<", 2010)))),
        ({"year": {"$gt": 2000.0}}, Range("year", ">", 2000)),
        ({"price": 3}, In("price", (3.0,))),
        ({"tags": "a"}, In("tags", ("a",))),
        ({"years": 7}, In("years", (7,))),
        ({"years": {"$gt": 7.0}}, Range("years", ">", 7)),
        ({"ratios": {"$lte": 0.5}}, Range("ratios", "<=", 0.5)),
        ({"seen": {"$lt": "1970-01-01T00:00:01Z"}}, Range("seen", "<", 1000)),
        ({"open": True}, In("open", (True,))),
        ({"lang": {"$exists": False}}, Not(Exists("lang"))),
        ({"$or": [{"lang": "en"}, {"year": 1}]}, Or((In("lang", ("en",)), In("year", (1,))))),
        ({"$not": {"lang": "en"}}, Not(In("lang", ("en",)))),
        ({"lang": {"$nin": ["a"]}, "open": False}, And((Not(In("lang", ("a",))), In("open", (False,))))),
        ({}, And(())),
        ({"year": {"$in": [4, 4.0, np.int32(5)]}}, In("year", (4, 5))),
        ({"year": 4.0}, In("year", (4,))),
        ({"year": {"$ne": np.float64(4)}}, Not(In("year", (4,)))),
        ({"years": {"$nin": np.array([1, 2])}}, Not(In("years", (1, 2)))),
        ({"price": {"$in": [4, 4.0, np.float32(0.5)]}}, In("price", (4.0, 0.5))),
        ({"price": {"$gt": np.int64(4)}}, Range("price", ">", 4.0)),
        ({"seen": 1000.0}, In("seen", (1000,))),
    ],
)
def test_parses(where, tree):
    assert parse_filter(where, SCHEMA) == tree


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"nope": 1}, "'nope' unknown.*year, price"),
        ({"year": "2000"}, "'year'"),
        ({"year": True}, "'year'"),
        ({"open": 1}, "'open'"),
        ({"years": [7]}, r'"\$in"'),
        ({"lang": ["en"]}, r'"\$in"'),
        ({"years": {"$eq": [7]}}, r"use \$in"),
        ({"lang": {"$ne": ["en", "de"]}}, r"use \$in"),
        ({"years": "7"}, "does not fit"),
        ({"year": {"$in": [4, 4.5]}}, "4.5 is not a whole number"),
        ({"year": {"$in": [4, True]}}, "does not fit"),
        ({"year": 4.5}, "whole"),
        ({"year": float("inf")}, "whole"),
        ({"year": {"$lt": 2**70}}, "64 bits"),
        ({"year": {"$nin": [2**70]}}, "64 bits"),
        ({"price": {"$in": [float("nan")]}}, "finite"),
        ({"price": "4"}, "does not fit"),
        ({"years": {"$gt": 0.5}}, "whole"),
        ({"tags": {"$gt": "a"}}, "'tags'"),
        ({"year": {"$gt": 2000.5}}, "whole"),
        ({"year": {"$gt": float("nan")}}, "number"),
        ({"price": {"$lt": float("inf")}}, "finite"),
        ({"lang": {"$gt": "a"}}, "--type lang=timestamp"),
        ({"lang": {"$regex": "a"}}, r"\$regex"),
        ({"lang": {}}, "no operator"),
        ({"$nor": []}, r"\$nor"),
        ({"$or": []}, "at least one"),
        ({"$and": {"lang": "en"}}, "list"),
        ({"lang": {"$in": "en"}}, "list"),
        ({"lang": {"$exists": 1}}, "true or false"),
        ([], "object"),
    ],
)
def test_refuses(where, message):
    with pytest.raises(FilterError, match=message):
        parse_filter(where, SCHEMA)


def test_deep_nesting_is_refused():
    where: dict = {"lang": "en"}
    for _ in range(40):
        where = {"$not": where}
    with pytest.raises(FilterError, match="deeper"):
        parse_filter(where, SCHEMA)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"year": 1, "year": 2}', "'year' occurs twice"),
        ('{"year": {"$gt": 1, "$gt": 2}}', r"'\$gt' occurs twice"),
        ('{"$or": [{"lang": "a", "lang": "b"}]}', "'lang' occurs twice"),
        ('{"price": NaN}', "NaN"),
        ('{"price": {"$lt": -Infinity}}', "-Infinity"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "object"),
        ('"year"', "object"),
    ],
)
def test_json_that_is_no_filter(text, message):
    with pytest.raises(FilterError, match=message):
        where_from_json(text)


def test_a_filter_from_json():
    assert where_from_json('{"year": {"$gt": 1, "$lt": 2.0}}') == {"year": {"$gt": 1, "$lt": 2.0}}


@pytest.mark.parametrize("where", [[], "", 0, False, "lang"])
def test_what_is_no_object_is_not_taken_for_no_filter(where):
    with pytest.raises(FilterError, match="object"):
        parse_where(where, SCHEMA)


def test_nothing_to_filter_by():
    assert parse_where(None, SCHEMA) is None
    assert parse_where({}, SCHEMA) is None
