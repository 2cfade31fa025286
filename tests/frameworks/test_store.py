"""Documents with any metadata, put, got and deleted by id."""

from __future__ import annotations

import pytest
from animals import ANIMALS

from colbert_vespa.store import METADATA_JSON, DocumentStore, whole_metadata
from late_interaction.addresses import locate
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError, LocalIndexError, MetadataError, UsageError, VespaRefused


@pytest.fixture
def store(tmp_path, minilm_bundle):
    made = DocumentStore(tmp_path / "index", minilm_bundle)
    yield made
    made.close()


def test_before_the_first_put_there_is_nothing(store, tmp_path):
    assert store.client is None
    assert store.get(["a"]) == []
    assert store.delete(["a"]).succeeded == ()
    store.delete_where(None)
    assert store.put([]).succeeded == ()
    assert not (tmp_path / "index").exists()


def test_documents_come_back_as_they_were_put(store):
    outcome = store.put(ANIMALS)
    assert (outcome.succeeded, outcome.failed) == (tuple(d.id for d in ANIMALS), {})
    found = {d.id: d for d in store.get([*(d.id for d in ANIMALS), "nowhere"])}
    assert set(found) == {d.id for d in ANIMALS}
    for document in ANIMALS:
        back = found[document.id]
        assert (back.title, back.text, whole_metadata(back.metadata)) == (document.title, document.text, document.metadata)


def test_what_no_field_can_hold_is_kept_and_not_a_field(store):
    odd = {
        "nested": {"a": [1]}, "mixed": [1, "a"], "none": None, "empty": [], "attribute": 1, "id": 7, "_private": "x",
        METADATA_JSON: "mine", "plain": "p",
    }  # fmt: skip
    store.put([Document("a", "", "text", odd)])
    assert whole_metadata(store.get(["a"])[0].metadata) == odd
    assert set(store.client.schema.fields) == {"plain", METADATA_JSON}
    store.put([Document("a", "", "text", {"later": 1})])
    assert whole_metadata(store.get(["a"])[0].metadata) == {"later": 1}


def test_a_value_of_another_type_is_refused_before_anything_is_written(store):
    store.put(ANIMALS)
    with pytest.raises(MetadataError, match="document 'b'.*'legs'"):
        store.put([Document("a", "", "x", {"legs": 3}), Document("b", "", "x", {"legs": "four"})])
    with pytest.raises(MetadataError, match="document 'c'"):
        store.put([Document("c", "", "x", {"loc": object()})])
    assert store.get(["a", "b", "c"]) == []


def test_blank_documents_fail_and_others_do_not(store):
    outcome = store.put([Document("a", "", "text"), Document("b", " ", "\n")])
    assert (outcome.succeeded, outcome.failed) == (("a",), {"b": "the document is blank"})


def test_fields_may_be_named(tmp_path, minilm_bundle):
    store = DocumentStore(tmp_path / "index", minilm_bundle, fields={"year": "int"})
    store.put([Document("a", "", "text", {"year": 2000, "other": "x"})])
    assert set(store.client.schema.fields) == {"year", METADATA_JSON}
    assert store.client.select({"year": {"$gte": 2000}}) == ("a",)
    store.close()


def test_deleting_says_what_was_there(store):
    store.put(ANIMALS)
    assert store.delete(["cat", "nowhere", "cat"]).succeeded == ("cat",)
    assert store.get(["cat"]) == []
    store.delete_where({"home": "house"})
    assert sorted(store.client.select()) == ["bird", "fish"]
    store.delete_where(None)
    assert store.client.select() == ()


def test_an_index_needs_a_bundle_or_metadata_json(tmp_path, minilm_bundle):
    from late_interaction.metadata import FieldType, MetadataSchema
    from late_interaction.plaid import LocalIndex

    with pytest.raises(UsageError, match="bundle="):
        DocumentStore(tmp_path / "none").put(ANIMALS)
    LocalIndex.create(tmp_path / "plain", bundle=minilm_bundle, schema=MetadataSchema({"year": FieldType.LONG}))
    store = DocumentStore(tmp_path / "plain")
    with pytest.raises(MetadataError, match="legs.*metadata_json of type string"):
        store.put(ANIMALS[:1])
    assert store.put([Document("a", "", "text", {"year": 1, "none": None})]).succeeded == ("a",)
    (tmp_path / "file").write_text("x")
    with pytest.raises(LocalIndexError):
        DocumentStore(tmp_path / "file")


@pytest.mark.parametrize("documents", ["abc", [{"id": "a"}], [None], None])
def test_what_is_not_a_list_of_documents_is_refused(store, documents):
    with pytest.raises(ColbertVespaError, match="document"):
        store.put(documents)


@pytest.mark.parametrize("ids", ["abc", ["\x00"], [None]])
def test_what_is_not_a_list_of_ids_is_refused(store, ids):
    store.put([Document("a", text="text\ud800"), Document("c", text="text")])
    for call in (store.get, store.delete):
        with pytest.raises(UsageError, match="ids"):
            call(ids)
    assert [document.text for document in store.get(["a", "c"])] == ["text ", "text"]


@pytest.mark.parametrize(("address", "kind"), [("index", LocalIndexError), ("http://node:8080", VespaRefused)])
def test_what_an_index_does_not_take_is_an_error_of_that_index(address, kind):
    store = object.__new__(DocumentStore)
    store._place, store.address = locate(address), address
    error = store.refusal("document 'a': no")
    assert type(error) is kind and str(error) == f"{address}: document 'a': no"


def test_a_text_is_no_list_of_ids(tmp_path, tiny_bundle):
    store = DocumentStore(tmp_path / "index", tiny_bundle)
    for call in (store.get, store.delete):
        with pytest.raises(UsageError, match="list"):
            call("abc")
    store.put([Document("abc", text="one"), Document("a", text="two")])
    with pytest.raises(UsageError, match="list"):
        store.delete("abc")
    assert sorted(store.client.select()) == ["a", "abc"]
    store.close()


def test_every_blank_document_fails_however_many_there_are(store):
    documents = [Document(f"d{n}", "", "" if n % 2 else "a text") for n in range(60)]
    outcome = store.put(documents)
    assert outcome.succeeded == tuple(f"d{n}" for n in range(0, 60, 2))
    assert set(outcome.failed) == {f"d{n}" for n in range(1, 60, 2)}
    outcome = store.put([Document("d0", "", "new"), Document("d0"), Document("d2"), Document("d2", "", "newer")])
    assert (outcome.succeeded, set(outcome.failed)) == (("d2",), {"d0"})
    assert [(found.id, found.text) for found in store.get(["d0", "d2"])] == [("d2", "newer")]


@pytest.mark.parametrize("ids", ["abc", b"abc", ["a", 1.5], {"a": 1}])
def test_a_text_is_not_taken_for_a_list_of_ids(store, ids):
    store.put([Document(id_, "", "text") for id_ in ("a", "b", "c", "abc")])
    with pytest.raises(UsageError):
        store.delete(ids)
    assert len(store.get(["a", "b", "c", "abc"])) == 4


def test_what_is_deleted_is_what_was_there(store):
    store.put([Document(f"d{n}", "", "text") for n in range(3)])
    outcome = store.delete(["nobody", "d1", *(f"none{n}" for n in range(50)), "d2", "d1"])
    assert (outcome.succeeded, outcome.failed) == (("d1", "d2"), {})


def test_documents_that_are_selected_and_cannot_be_found_end_a_deletion_by_filter(store, monkeypatch):
    store.put([Document("a", "", "text")])
    select = store.client.select

    def haunted(where):
        found = select(where)
        return type(found)((*found, "ghost"), found.coverage)

    monkeypatch.setattr(store.client, "select", haunted)
    with pytest.raises(LocalIndexError, match="1 documents that the filter selects cannot be found.*'ghost'"):
        store.delete_where(None)
    assert store.get(["a"]) == []


def test_an_interrupted_feed_is_no_success(store, monkeypatch):
    store.put([Document("a", "", "text")])
    monkeypatch.setattr("feeder.feeding.run.Stop.__call__", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        store.put([Document("b", "", "text")])
    with pytest.raises(KeyboardInterrupt):
        store.delete(["a"])
