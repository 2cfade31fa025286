"""Metadata of a document change while its vectors stay as they are stored, and digests say what was fed."""

import dataclasses

import numpy as np
import pytest
from plaid_tools import DENSE, check_dense, dense_of, fake_bundle, passage, token_vectors

from late_interaction.errors import MetadataError, UsageError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding
from late_interaction.plaid.writing import committing
from late_interaction.plaid.writing.build import merge_segments

SCHEMA = MetadataSchema({"year": FieldType.LONG, "tags": FieldType.STRINGS})
COUNT = 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b", dense=DENSE)


@pytest.fixture(scope="module")
def vectors():
    return token_vectors(np.random.default_rng(3), 2 * COUNT)


def parts(vectors):
    """Documents d0, d1, ... of two passages each, with their digests."""
    for number, rows in enumerate(vectors):
        made = passage(f"d{number // 2}", number % 2, year=2000, tags=["old"])
        yield dataclasses.replace(made, digest=f"digest {number // 2}"), rows


def put_all(index, writer, vectors):
    for number, (item, rows) in enumerate(parts(vectors)):
        writer.put(item, rows, dense=dense_of(index, number))


@pytest.fixture(params=["residual", "binary", "float32", "refine"])
def index(request, tmp_path, bundle, vectors):
    codec, refine = ("residual", True) if request.param == "refine" else (request.param, False)
    made = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, codec=codec, refine=refine)
    with made.writer() as writer:
        put_all(made, writer, vectors)
        writer.commit()
    return made


def stored(index):
    dense = index.dense_vectors([item.id for item in index.iter_passages()])
    return {
        item.id: (dict(item.metadata), item.digest, index.vectors(item.id), np.concatenate(list(dense[item.id].values())))
        for item in index.iter_passages()
    }


def test_digests_are_stored_merged_and_survive_a_crash(index, vectors):
    assert {item.digest for item in index.iter_passages()} == {f"digest {n}" for n in range(COUNT)}
    with index.writer() as writer:
        writer.put(dataclasses.replace(passage("d3", 1), digest="new"), vectors[0], dense=dense_of(index, 0))
        assert writer.passages_of("d3") == {"d3#0": "digest 3", "d3#1": "new"}
        assert writer.passages_of("nobody") == {}
        writer.flush()
    with index.writer(resume=True) as writer:
        assert writer.passages_of("d3") == {"d3#0": "digest 3", "d3#1": "new"}
        writer.commit(compact=True)
    assert (index.passage("d3#0").digest, index.passage("d3#1").digest) == ("digest 3", "new")


@pytest.mark.parametrize("compact", [False, True])
def test_vectors_stay_bit_for_bit(index, compact):
    before = stored(index)
    with index.writer() as writer:
        assert writer.update_metadata("d7", {"year": 2024, "tags": None}) == 2
        assert writer.update_metadata("nobody", {"year": 1}) == 0
        assert writer.passages_of("d7") == {"d7#0": "", "d7#1": ""}
        writer.commit(compact=compact)
    after = stored(index)
    assert set(after) == set(before)
    for id_, (metadata, digest, rows, dense) in after.items():
        changed = id_.startswith("d7#")
        assert np.array_equal(rows, before[id_][2]) and np.array_equal(dense, before[id_][3])
        assert metadata == ({"year": 2024} if changed else {"year": 2000, "tags": ["old"]})
        assert digest == ("" if changed else before[id_][1])
    found = index.search(before["d7#0"][2], 10, where=parse_filter({"year": 2024}, SCHEMA))
    assert {hit.passage.id for hit in found.hits} == {"d7#0", "d7#1"}
    index.verify()


def test_updates_pile_up_and_survive_a_crash(index):
    with index.writer() as writer:
        writer.update_metadata("d1", {"year": 1})
        writer.update_metadata("d1", {"tags": ["a"]})
        writer.update_metadata("d2", {"year": 2})
        writer.delete_passage("d2#1")
        writer.update_metadata("d4", {"year": 4})
        writer.delete_document("d4")
        writer.flush()
    with index.writer(resume=True) as writer:
        writer.update_metadata("d1", {"year": 5})
        writer.commit()
    after = stored(index)
    assert after["d1#0"][0] == after["d1#1"][0] == {"year": 5, "tags": ["a"]}
    assert after["d2#0"][0]["year"] == 2
    assert {"d2#1", "d4#0", "d4#1"} & set(after) == set()
    assert index.passages == 2 * COUNT - 3


def test_what_waits_for_the_commit_is_updated_too(tmp_path, bundle, vectors):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    with index.writer() as writer:
        put_all(index, writer, vectors)
        assert writer.update_metadata("d1", {"year": 7}) == 2
        assert writer.passages_of("d1") == {"d1#0": "", "d1#1": ""}
        writer.put(passage("d2", 0, year=9), vectors[0], dense=dense_of(index, 0))
        writer.commit()
    assert index.passage("d1#1").metadata == {"year": 7, "tags": ["old"]}
    check_dense(index, {f"d{n // 2}#{n % 2}": 0 if n == 4 else n for n in range(2 * COUNT)})
    assert index.passage("d2#0").metadata == {"year": 9}
    assert index.passages == 2 * COUNT


def test_a_put_after_an_update_wins_and_training_keeps_updates(index, vectors):
    with index.writer() as writer:
        writer.update_metadata("d1", {"year": 7})
        writer.put(passage("d1", 0, year=8), vectors[0], dense=dense_of(index, 0))
        more = token_vectors(np.random.default_rng(4), 20 * COUNT)
        for number, rows in enumerate(more):
            writer.put(passage(f"more{number}"), rows, dense=dense_of(index, number))
        writer.commit()
    assert (index.passage("d1#0").metadata, index.passage("d1#1").metadata["year"]) == ({"year": 8}, 7)


def test_a_value_of_another_type_changes_nothing(index):
    with index.writer() as writer:
        with pytest.raises(MetadataError, match="year"):
            writer.update_metadata("d1", {"year": "x"})
        with pytest.raises(MetadataError, match="nothing"):
            writer.update_metadata("d1", {"nothing": 1})
        writer.commit()
    assert index.passage("d1#0").digest == "digest 1"


@pytest.mark.parametrize("field", [None, "year"])
def test_shards(tmp_path, bundle, vectors, field):
    sharding = Sharding(3, field)
    index = ShardedIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, sharding=sharding, storage=Storage())
    with index, index.writer() as writer:
        put_all(index, writer, vectors)
        assert writer.passages_of("d1") == {"d1#0": "digest 1", "d1#1": "digest 1"}
        assert writer.update_metadata("d1", {"tags": ["new"]}) == 2
        if field:
            with pytest.raises(UsageError, match="assigns passages to shards"):
                writer.update_metadata("d1", {"year": 1})
        writer.commit()
        assert index.passage("d1#0").metadata["tags"] == ["new"]


def test_updates_hold_no_texts_in_memory(index, monkeypatch):
    """Formerly a commit held those of all passages that it updates."""
    held = []

    def merging(root, name, schema, codebook, form, parts, changed=None):
        held.extend(changed)
        return merge_segments(root, name, schema, codebook, form, parts, changed)

    monkeypatch.setattr(committing, "merge_segments", merging)
    with index.writer() as writer:
        writer.update_metadata("d1", {"year": 1999})
        writer.commit()
    assert held and all((p.title, p.text, p.metadata["year"]) == ("", "", 1999) for p in held)
    assert {p.text for p in index.passages_of(["d1"])["d1"]} != {""}


def test_fields_can_be_added_later(index, vectors):
    before = {id_: index.vectors(id_) for id_ in ("d0#0", "d7#1")}
    with index.writer() as writer:
        writer.delete_document("d3")
        with pytest.raises(UsageError, match="uncommitted changes"):
            writer.add_fields(MetadataSchema({"lang": FieldType.STRING}))
        writer.commit()
        number = index.version
        with pytest.raises(MetadataError, match="'year' in .*long.*string"):
            writer.add_fields(MetadataSchema({"year": FieldType.STRING}))
        assert writer.add_fields(MetadataSchema({"year": FieldType.LONG})).version == number
        assert writer.add_fields(MetadataSchema({"lang": FieldType.STRING})).version == number + 1
        writer.put(passage("new", 0, year=2001, lang="en"), vectors[0], dense=dense_of(index, 0))
        writer.commit()
    index.verify()
    assert list(index.schema.fields) == ["lang", "tags", "year"]
    assert index.documents == COUNT
    found = {p.id: (p.metadata, p.digest) for p in index.iter_passages()}
    assert found["d7#1"] == ({"year": 2000, "tags": ["old"]}, "digest 7")
    assert found["new#0"] == ({"year": 2001, "lang": "en"}, "")
    for id_, rows in before.items():
        assert np.array_equal(index.vectors(id_), rows)
    hits = index.search(vectors[0], 5, where=parse_filter({"lang": "en"}, index.schema)).hits
    assert [hit.passage.id for hit in hits] == ["new#0"]
    with index.writer() as writer:
        writer.rollback(number + 1)
    assert index.documents == COUNT - 1


def test_fields_can_be_added_to_an_empty_index(tmp_path, bundle):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=MetadataSchema({}))
    with index.writer() as writer:
        writer.add_fields(SCHEMA)
    assert dict(LocalIndex.open(tmp_path / "i").schema.fields) == dict(SCHEMA.fields)
    assert index.passages == 0


def test_an_older_version_stays_where_it_is(index, vectors):
    number = index.version
    old = LocalIndex.open(index.path, version=number)
    with index.writer() as writer:
        writer.delete_document("d0")
        writer.commit("less")
    assert not old.refresh()
    assert (old.version, old.documents, index.documents) == (number, COUNT, COUNT - 1)
    assert LocalIndex.open(index.path, version="less").documents == COUNT - 1
    with pytest.raises(UsageError, match=f"at version {number}"):
        old.writer()
