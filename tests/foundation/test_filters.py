import pytest

from late_interaction.errors import FilterError
from late_interaction.filters import And, Exists, In, Not, Or, Range, parse_filter
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
        ({"years": [7]}, "no long"),
        ({"years": "7"}, "no long"),
        ({"years": {"$gt": 0.5}}, "whole"),
        ({"tags": {"$gt": "a"}}, "number field"),
        ({"year": {"$gt": 2000.5}}, "whole"),
        ({"year": {"$gt": float("nan")}}, "number"),
        ({"price": {"$lt": float("inf")}}, "finite"),
        ({"lang": {"$gt": "a"}}, "number field"),
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
