"""The one reader of JSON and TOML: what it refuses, and how it names the place."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from late_interaction.errors import LocalIndexError
from late_interaction.structured import Count, parse, parse_sealed, read, sealed


@dataclass(frozen=True, slots=True)
class Part:
    count: Count
    share: float = 0.0


@dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = ()
    named: Mapping[str, Part] = field(default_factory=dict)
    best: Part | None = None
    on: bool = False


DATA = {"name": "a", "parts": [{"count": 1, "share": 2}], "named": {"x": {"count": 10**30}}, "best": {"count": 0}, "on": True}


def test_what_fits_is_the_dataclass():
    assert read(Whole, DATA, LocalIndexError) == Whole("a", (Part(1, 2.0),), {"x": Part(10**30)}, Part(0), True)
    assert read(Whole, {"name": "a", "best": None}, LocalIndexError) == Whole("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "key colour: .*unknown; known: name, parts, named, best, on"),
        ({"best": {"count": 1, "size": 2}}, "key best.size: .*unknown; known: count, share"),
        ({"parts": [{"count": 1}, {"count": 1, "size": 2}]}, r"key parts\[1\].size: .*unknown"),
        ({"named": {"x": {"count": 1, "size": 2}}}, "key named.x.size: .*unknown"),
        ({"name": 5}, "key name: must be str, got int"),
        ({"on": 1}, "key on: must be bool, got int"),
        ({"best": {"count": True}}, "key best.count: must be int, got bool"),
        ({"best": {"count": 1.0}}, "key best.count: must be int, got float"),
        ({"best": {"count": "1"}}, "key best.count: must be int, got str"),
        ({"best": {"count": -1}}, "key best.count: must be int >= 0"),
        ({"best": {}}, "key best.count: is missing"),
        ({"best": 3}, "key best: must be a table or none, got int"),
        ({"parts": "x"}, "key parts: must be a list, got str"),
        ({"best": {"count": 1, "share": float("nan")}}, "key best.share: must be a finite number"),
        ({"best": {"count": 1, "share": 10**400}}, "key best.share: Number out of range"),
        ({"named": {"x": {"count": 1}, "y.z": {"count": None}}}, "key named.y.z.count: must be int, got none"),
        ({"named": {"x": 3}}, "key named.x: must be a table, got int"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(change, message):
    with pytest.raises(LocalIndexError, match=f"^file: {message}"):
        read(Whole, DATA | change, LocalIndexError, "file")


@pytest.mark.parametrize("data", [None, 5, "x", [], [DATA]])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(LocalIndexError, match="key all: must be a table"):
        read(Whole, data, LocalIndexError)


def test_the_path_begins_where_the_data_lies():
    with pytest.raises(LocalIndexError, match="^setting indexes.notes.name: is missing$"):
        read(Whole, {}, LocalIndexError, noun="setting", path="indexes.notes")
    assert dataclasses.asdict(read(Part, {"count": 1}, LocalIndexError)) == {"count": 1, "share": 0.0}


def test_a_type_inside_mappings_inside_lists_is_named_by_its_key():
    @dataclass(frozen=True)
    class Listed:
        groups: tuple[Mapping[str, Mapping[str, int]], ...]

    data = {"groups": [{"a": {"x": 1}}, {"a": {"x": 1}, "b": {"x": 1, "y": "2"}}]}
    before = copy.deepcopy(data)
    with pytest.raises(LocalIndexError, match=r"^key whole.groups\[1\].b.y: must be int, got str$"):
        read(Listed, data, LocalIndexError, path="whole")
    assert data == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "file cannot be read: it is not JSON .*: make it again"),
        (b"\xff", "file cannot be read: it is not JSON .*: make it again"),
        ("[" * 100_000, "file cannot be read: it is not JSON .*: make it again"),
        ("[]", "file cannot be read: it is not a JSON object: make it again"),
        ("{}", "file: format version None .* reads 2: make it again"),
        ('{"format_version": "2"}', "file: format version '2' .* reads 2: make it again"),
    ],
)
def test_what_is_another_file_is_refused(text, message):
    with pytest.raises(LocalIndexError, match=f"^{message}$"):
        parse(text, LocalIndexError, "file", "make it again", format_version=2)


def test_an_object_comes_without_what_says_what_it_is():
    assert parse('{"format_version": 2, "a": 1}', LocalIndexError, "file", format_version=2) == {"a": 1}
    text = json.dumps(sealed({"format_version": 2, "a": 1}))
    assert parse_sealed(text.encode(), LocalIndexError, "file", format_version=2) == {"a": 1}
    with pytest.raises(LocalIndexError, match="file has changed"):
        parse_sealed(text.replace("1", "3").encode(), LocalIndexError, "file", format_version=2)
