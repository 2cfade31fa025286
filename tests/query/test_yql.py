import pytest

from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from query.yql import filter_to_yql, string_literal

SCHEMA = MetadataSchema({"year": FieldType.LONG, "lang": FieldType.STRING, "open": FieldType.BOOL, "r": FieldType.DOUBLE})


@pytest.mark.parametrize(
    ("where", "yql"),
    [
        ({"lang": "en"}, '((lang contains "en") and (present contains "lang"))'),
        ({"year": {"$gte": 5}}, '(year >= 5 and (present contains "year"))'),
        ({"year": 2**40}, '((year = 1099511627776L) and (present contains "year"))'),
        ({"open": True}, '((open = true) and (present contains "open"))'),
        ({"r": {"$lt": 0.5}}, '(r < 0.5 and (present contains "r"))'),
        ({"lang": {"$in": []}}, "false"),
        ({"lang": {"$exists": True}}, '(present contains "lang")'),
        ({"$not": {"year": 1}}, '(true and !(((year = 1) and (present contains "year"))))'),
        ({"lang": ""}, '((present contains "lang=") and (present contains "lang"))'),
        ({}, "true"),
    ],
)
def test_filters_compile(where, yql):
    assert filter_to_yql(parse_filter(where, SCHEMA)) == yql


def test_strings_are_escaped():
    assert string_literal('a"b\\c\n\x7f') == '"a\\"b\\\\c\\u000a\\u007f"'
