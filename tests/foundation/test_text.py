"""One door for texts and ids: what comes in by any way is cleaned, checked and refused alike."""

import copy
import datetime
import decimal
import pickle

import numpy as np
import pytest

from late_interaction.documents import Document, Passage
from late_interaction.errors import MetadataError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema, SchemaInference, coerce
from late_interaction.text import checked_id, checked_ids, checked_text, clean_text, without_surrogates

FORBIDDEN = ("\x00", "\x08", "\x0b", "\x1f", "\ud800", "\udfff", "\ufdd0", "\ufffe", "\U0001ffff", "\U0010ffff")


@pytest.mark.parametrize("character", FORBIDDEN)
def test_a_forbidden_character_is_a_blank_in_texts_and_an_error_in_ids(character):
    document = Document("a", f"t{character}", f"x{character}y", {"name": f"n{character}", "tags": [character]})
    assert (document.title, document.text) == ("t ", "x y")
    assert document.metadata == {"name": "n ", "tags": [" "]}
    for make in (Document, checked_id, lambda id_: Passage(id_, "a", "", "", {}).checked(), lambda id_: checked_ids([id_])):
        with pytest.raises(UsageError, match="are not text"):
            make(f"i{character}")


def test_what_is_text_stays():
    text = "tab\t line\n end\r \x7f \x85 \u2028 é 日本 \U0001f600 \ufffd \U0010fffd"
    assert clean_text(text) == checked_text(text, "it") == Document(text, text, text).text == text
    assert without_surrogates("é\ud800\x00") == "é \x00"


@pytest.mark.parametrize("id_", [5, np.int64(5), np.uint8(5)])
def test_whole_numbers_are_ids_in_digits(id_):
    assert Document(id_).id == checked_id(id_) == checked_ids([id_])[0] == "5"


@pytest.mark.parametrize("id_", ["", " \t", None, True, 1.5, b"a", ["a"], float("nan")])
def test_what_is_not_an_id_is_named(id_):
    with pytest.raises(UsageError, match="document id"):
        Document(id_)


@pytest.mark.parametrize("ids", ["abc", b"abc", {"a": 1}, 5, None])
def test_a_single_text_is_not_a_list_of_ids(ids):
    with pytest.raises(UsageError, match="ids must be a list"):
        checked_ids(ids)


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a"], {"a": 1}, float("nan")])
def test_what_is_not_text_is_named(text):
    for make in (lambda: Document("a", text), lambda: Document("a", "", text)):
        with pytest.raises(UsageError, match="document 'a': .* must be text"):
            make()


def test_ids_have_a_length():
    assert Document("x" * 1024)
    with pytest.raises(UsageError, match="longer than 1024"):
        Document("x" * 1025)


def test_subclasses_of_text_become_plain_texts():
    class Odd(str):
        __slots__ = ()

    document = Document(Odd("a"), Odd("b"), np.str_("c"), {"d": Odd("e")})
    parts = (document.id, document.title, document.text, document.metadata["d"])
    assert [type(part) for part in parts] == [str] * 4
    assert copy.deepcopy(document) == pickle.loads(pickle.dumps(document)) == document


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([1, 2]), [1, 2]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array(["a", "b"], object), ["a", "b"]),
        (np.array([]), []),
        (np.array(7), 7),
        ((1, 2), [1, 2]),
        ({"lat": np.float64(1.5), "lng": 2}, {"lat": 1.5, "lng": 2}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone.utc), "2026-01-02T03:00:00+00:00"),
        (np.datetime64("2026-01-02T03:00:00", "ns"), "2026-01-02T03:00:00"),
        (np.datetime64("NaT"), None),
        (decimal.Decimal("0.1"), 0.1),
    ],
)
def test_metadata_become_plain_values(value, plain):
    found = Document("a", metadata={"f": value}).metadata["f"]
    assert found == plain and type(found) is type(plain)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"a",
        1j,
        float("nan"),
        np.float32("inf"),
        np.array([np.nan]),
        {5: 1},
        decimal.Decimal("0.12345678901234567890"),
    ],
)
def test_other_metadata_are_named(value):
    with pytest.raises(MetadataError, match="document 'a': .*'f'"):
        Document("a", metadata={"f": value})


def test_metadata_that_hold_themselves_or_are_none():
    own = []
    own.append(own)
    for metadata in ({"f": own}, None, [("f", 1)], {5: 1}):
        with pytest.raises(MetadataError, match="document 'a': "):
            Document("a", metadata=metadata)


def test_empty_arrays_are_no_value_to_a_schema():
    schema = MetadataSchema({"f": FieldType.DOUBLES})
    assert schema.check({"f": np.array([])}) == {}
    assert schema.check({"f": np.array([1.5])}) == {"f": [1.5]}
    inference = SchemaInference()
    inference.add("a", {"f": np.array([])})
    assert inference.schema().fields == {}


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 10**18 + 1])
def test_a_whole_number_that_is_not_exact_as_a_double_is_refused(value):
    with pytest.raises(MetadataError, match="double"):
        coerce("f", value, FieldType.DOUBLE)
    with pytest.raises(MetadataError, match="double"):
        MetadataSchema({"f": FieldType.DOUBLES}).check({"f": [0.5, value]})
    assert coerce("f", 2**60, FieldType.DOUBLE) == 2.0**60
