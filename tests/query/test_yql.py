import operator
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from late_interaction.errors import FilterError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from query.yql import filter_to_yql, string_literal
from query.yql_ranges import whole_range

SCHEMA = MetadataSchema({"year": FieldType.LONG, "lang": FieldType.STRING, "open": FieldType.BOOL, "r": FieldType.DOUBLE,
                         "years": FieldType.LONGS})  # fmt: skip


@pytest.mark.parametrize(
    ("where", "yql"),
    [
        ({"lang": "en"}, '((lang contains "en") and (present contains "lang"))'),
        ({"year": {"$gte": 5}}, '(year >= 5 and (present contains "year"))'),
        ({"year": 2**40}, '((year = 1099511627776L) and (present contains "year"))'),
        ({"open": True}, '((open = true) and (present contains "open"))'),
        ({"r": {"$lt": 0.5}}, '(r < 0.5 and (present contains "r"))'),
        ({"years": {"$gte": 5}}, '(years >= 5 and (present contains "years"))'),
        ({"years": {"$in": [1, 2]}}, '((years = 1 or years = 2) and (present contains "years"))'),
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


LITERAL = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\["\\]|\\u[0-9a-f]{4})*"')


@given(st.text())
@example('") or true or (x contains "')
@example("\\")
@example('\\"\u2028\x00')
def test_no_text_leaves_its_literal(text):
    """One literal from the first character to the last, which means the text."""
    literal = string_literal(text)
    assert LITERAL.fullmatch(literal)
    escapes = re.compile(r'\\(?:u([0-9a-f]{4})|(["\\]))')
    assert escapes.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2], literal[1:-1]) == text


COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
LARGEST = 2**63 - 1
ENDS = (2**31 - 1, 2**53, 2**54, 2**57, LARGEST)
STEPS = (-3, -2, -1, 0, 1, 2, 3)
WHOLE = sorted(v for sign in (1, -1) for end in ENDS for step in STEPS if abs(v := sign * end + step) <= LARGEST)


def node_selects(expression, value):
    """What Vespa does: bounds of ranges are 64-bit floats, equality is exact, and no int is `>= 2147483647`."""
    compare = {"=": operator.eq, **COMPARE}
    if expression in ("true", "false"):
        return expression == "true"
    found = False
    for part in expression.strip("()").split(" or "):
        field, op, bound = part.split()
        assert field == "year"
        number = int(bound.rstrip("L"))
        found |= compare[op](value, number if op == "=" else float(number)) and not (
            op == ">=" and bound == "2147483647" and value == 2**31 - 1
        )
    return found


@pytest.mark.parametrize("op", COMPARE)
def test_ranges_past_what_a_float_holds_are_exact(op):
    """Formerly `> 9007199254740992` missed 9007199254740993, and `>= 2147483647` the largest int."""
    compare = COMPARE[op]
    for bound in (bound for bound in WHOLE if op[0] == ">" or bound < LARGEST - 1024):
        expression = whole_range("year", op, bound)
        for value in WHOLE:
            assert node_selects(expression, value) == compare(value, bound), (bound, value)


def test_a_range_near_the_largest_long_is_no_longer_than_the_gap_between_floats():
    assert whole_range("year", ">", 2**62).count("year") == 1024
    with pytest.raises(FilterError, match="'year': Vespa cannot compare with 9223372036854775806"):
        whole_range("year", "<", LARGEST)
    assert whole_range("year", "<=", LARGEST) == "true"
    assert whole_range("year", ">", LARGEST) == "false"
    assert whole_range("year", ">=", -(2**63) + 1) == "true"
