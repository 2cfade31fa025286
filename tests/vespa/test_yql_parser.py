"""Filters with hostile texts, read by Vespa's own YQL parser: the parsed tree is the intended one, always."""

from __future__ import annotations

import math
import random
import re

import pytest

from late_interaction.filters import And, Exists, In, Near, Not, Or, Range, parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from query.yql import filter_to_yql

SCHEMA = MetadataSchema(
    {
        "lang": FieldType.STRING,
        "tags": FieldType.STRINGS,
        "year": FieldType.LONG,
        "ratio": FieldType.DOUBLE,
        "open": FieldType.BOOL,
        "place": FieldType.POSITION,
    }
)
HOSTILE = (
    '"', "\\", '\\"', '") or true or (lang contains "', "' or true --", "en\\", "\\u0022", "\\x22", "@text", "{a:1}", "/*",
    "//", "#", ";", "\n", "\r\n", "\t", "\x00", "\x1f", "\x7f", "\u2028", "\u202e", "\ufeff", "\U0001f600", "日本語", "é",
    "e\u0301", " ", "  a  b ", "*", "a*", "?", "%s", "$and", "contains", "userInput(@text)", "true", "null", "-1", "[1;2]",
    "<5", "a" * 300,
)  # fmt: skip
COUNT = 2000
KM_A_DEGREE = math.pi * 6356.752 / 180  # of latitude, with the earth's radius as Vespa has it
MICRO = 1e-6  # degrees, as Vespa keeps them
BOUND = re.compile(r"(?:(?P<less><)|(?P<more>>)|\[(?P<from>[^;]*);(?P<to>[^\]]*)\]|)(?P<value>[^\]]*)")


def hostile(rng):
    if rng.random() < 0.5:
        return rng.choice(HOSTILE)
    points = [
        rng.choice((rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000))) for _ in range(rng.randint(1, 12))
    ]
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000) + rng.choice(HOSTILE)


def where(rng, depth=0):
    choice = rng.random()
    if depth < 3 and choice < 0.4:
        return {rng.choice(("$and", "$or")): [where(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    if depth < 3 and choice < 0.5:
        return {"$not": where(rng, depth + 1)}
    field = rng.choice(list(SCHEMA.fields))
    if rng.random() < 0.1:
        return {field: {"$exists": rng.random() < 0.5}}
    if field in ("lang", "tags"):
        return {field: {rng.choice(("$in", "$nin")): [hostile(rng) for _ in range(rng.randint(0, 3))]}}
    if field == "open":
        return {field: rng.random() < 0.5}
    if field == "place":
        degrees = rng.choice((0.0, 1e-5, -0.00001, 90.0, -33.5, rng.uniform(-90, 90)))
        return {
            field: {"$near": {"lat": degrees, "lng": rng.choice((2, -1)) * degrees, "km": rng.choice((1e-3, 0.5, 7, 9_999))}}
        }
    value = rng.choice((0, -1, 7, 2**31, 2**53 + 1, -(2**62))) if field == "year" else rng.choice((0.5, -1e-7, 1e300, 3.0))
    small = field == "ratio" or abs(value) < 2**31
    return {field: {rng.choice(("$gt", "$gte", "$lt", "$lte", "$eq") if small else ("$eq", "$ne")): value}}


def intended(node):
    if isinstance(node, (And, Or)):
        parts = [intended(part) for part in node.parts]
        return parts[0] if len(parts) == 1 else ["and" if isinstance(node, And) else "or", *parts]
    if isinstance(node, Not):
        return ["and not", ["true"], intended(node.part)]
    if isinstance(node, Exists):
        return present(node.field)
    if isinstance(node, Near):
        numbers = (node.lat, node.lng, node.km / KM_A_DEGREE)
        return ["and", ["near", node.field, *(pytest.approx(n, abs=MICRO) for n in numbers)], present(node.field)]
    if isinstance(node, Range):
        return ["and", ["number", node.field, node.op, float(node.value)], present(node.field)]
    assert isinstance(node, In)
    if not node.values:
        return ["false"]
    tests = [equals(node.field, value) for value in node.values]
    return ["and", tests[0] if len(tests) == 1 else ["or", *tests], present(node.field)]


def present(field):
    return ["word", "present", field]


def equals(field, value):
    if isinstance(value, bool):
        return ["bool", field, value]
    return ["word", field, value] if isinstance(value, str) else ["number", field, "=", value]


def read(tree):
    """A tree of Vespa's with numbers as numbers: it writes 5 as `5`, >= 5 as `[5;]`."""
    if tree[0] != "number":
        return [read(part) if isinstance(part, list) else part for part in tree]
    found = BOUND.fullmatch(tree[2])
    if found["less"] or found["more"]:
        return [*tree[:2], "<" if found["less"] else ">", float(found["value"])]
    if found["from"] or found["to"]:
        return [*tree[:2], ">=" if found["from"] else "<=", float(found["from"] or found["to"])]
    text = found["value"]
    return [*tree[:2], "=", float(text) if any(sign in text for sign in ".Ee") else int(text)]


def cases():
    rng = random.Random(20)
    texts = [{field: text} for text in HOSTILE for field in ("lang", "tags")]
    return [parse_filter(filter_, SCHEMA) for filter_ in (*texts, *(where(rng) for _ in range(COUNT)))]


def question(nodes):
    yql = [f"select * from passage where ({filter_to_yql(node)})" for node in nodes]
    return {"words": ["lang", "tags", "present"], "numbers": ["year", "ratio", "open"], "places": ["place"], "yql": yql}


def compare(nodes, trees):
    for node, tree in zip(nodes, trees, strict=True):
        assert read(tree) == intended(node), filter_to_yql(node)


@pytest.mark.oracle
def test_the_parsed_filter_is_the_intended_tree(vespa_oracle):
    nodes = cases()
    reply = vespa_oracle.ask("yql", **question(nodes))
    assert reply["ok"], reply
    compare(nodes, reply["trees"])
