import pytest
from hypothesis import given
from hypothesis import strategies as st

from late_interaction.errors import MetadataError
from late_interaction.metadata import FieldType, MetadataSchema, SchemaInference, coerce


def test_types_are_inferred_and_sorted():
    schema = SchemaInference.of(
        [("a", {"z": "x", "n": 1, "tags": ["p"], "ok": True, "none": None}), ("b", {"n": 2, "r": 1.5, "tags": []})]
    )
    assert list(schema.fields.items()) == [
        ("n", FieldType.LONG),
        ("ok", FieldType.BOOL),
        ("r", FieldType.DOUBLE),
        ("tags", FieldType.STRINGS),
        ("z", FieldType.STRING),
    ]


def test_whole_and_broken_numbers_make_a_double():
    assert SchemaInference.of([("a", {"n": 1}), ("b", {"n": 1.5})]).fields["n"] is FieldType.DOUBLE
    assert SchemaInference.of([("a", {"n": 1.5}), ("b", {"n": 1})]).fields["n"] is FieldType.DOUBLE


@pytest.mark.parametrize(("first", "second"), [("x", 1), (1, True), (["a"], "a"), (True, 1.0)])
def test_two_types_of_one_field_name_both_documents(first, second):
    with pytest.raises(MetadataError, match="'f'.*'doc-a'.*'doc-b'"):
        SchemaInference.of([("doc-a", {"f": first}), ("doc-b", {"f": second})])


def test_lists_of_numbers_are_inferred():
    found = SchemaInference.of([("a", {"n": [1, 2], "r": [1, 0.5], "m": [1]}), ("b", {"n": [], "m": [0.5]})])
    assert found.fields == {"n": FieldType.LONGS, "r": FieldType.DOUBLES, "m": FieldType.DOUBLES}
    for other in (1, 0.5, ["x"], "x"):
        with pytest.raises(MetadataError, match=r"array<long> in document 'a' but"):
            SchemaInference.of([("a", {"n": [1]}), ("b", {"n": other})])


def test_lists_are_checked_element_by_element():
    assert coerce("f", [1, 2], FieldType.DOUBLES) == [1.0, 2.0]
    assert coerce("f", [0.1], FieldType.FLOATS) == [coerce("f", 0.1, FieldType.FLOAT)]
    assert coerce("f", ["1970-01-01T00:00:01Z"], FieldType.TIMESTAMPS) == [1000]
    schema = MetadataSchema({"f": FieldType.TIMESTAMPS})
    assert schema.shown({"f": [1000]}) == {"f": ["1970-01-01T00:00:01Z"]}
    refused = {
        FieldType.INTS: ([2**31], [None]),
        FieldType.LONGS: ([True], [[1]], 1),
        FieldType.FLOATS: ([1e39],),
        FieldType.DOUBLES: ([float("nan")],),
    }
    for type_, value in ((type_, value) for type_, values in refused.items() for value in values):
        with pytest.raises(MetadataError, match="'f'"):
            coerce("f", value, type_)


def test_vespas_types_of_lists():
    assert {type_.vespa for type_ in FieldType if type_.many} == {
        "array<string>", "array<int>", "array<long>", "array<float>", "array<double>",
    }  # fmt: skip


@pytest.mark.parametrize("value", [{"a": 1}, [True], [[1]], [1, "a"], ["a", None], object()])
def test_values_without_a_type_are_refused(value):
    with pytest.raises(MetadataError, match="'f'.*'doc'"):
        SchemaInference.of([("doc", {"f": value})])


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (True, FieldType.LONG),
        (1, FieldType.BOOL),
        (1, FieldType.STRING),
        ("1", FieldType.LONG),
        (1.0, FieldType.LONG),
        (float("nan"), FieldType.DOUBLE),
        (float("inf"), FieldType.DOUBLE),
        (10**400, FieldType.DOUBLE),
        (2**63, FieldType.LONG),
        (-(2**63), FieldType.LONG),
        ("a", FieldType.STRINGS),
    ],
)
def test_coerce_refuses(value, type_):
    with pytest.raises(MetadataError, match="'f'"):
        coerce("f", value, type_)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_every_long_is_kept(value):
    assert coerce("f", value, FieldType.LONG) == value


def test_check_drops_nulls_and_names_unknown_fields():
    schema = MetadataSchema({"year": FieldType.LONG})
    assert schema.check({"year": None}) == {}
    with pytest.raises(MetadataError, match="'lang'.*year"):
        schema.check({"lang": "en"})


def test_schema_round_trips_through_json():
    schema = MetadataSchema({"a": FieldType.STRINGS, "b": FieldType.BOOL})
    assert MetadataSchema.from_json(schema.to_json()) == schema
    with pytest.raises(MetadataError, match="blob"):
        MetadataSchema.from_json({"a": "blob"})
