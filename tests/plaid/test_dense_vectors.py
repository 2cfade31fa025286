"""Dense vectors beside the token vectors: what is taken and refused, stored and found. Histories, kills, flipped bytes and
shards are in the files of those."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from plaid_tools import DENSE, check_dense, dense_of, fake_bundle, passage, token_vectors, unit

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.imports import import_index
from late_interaction.plaid.writing import committing

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b", dense=DENSE)


@pytest.fixture
def index(tmp_path, bundle):
    return LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)


def put(index, numbers, name="", **options):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", n=number), VECTORS[number], dense=dense_of(index, number))
        return writer.commit(name, **options)


def numbers_of(numbers):
    return {f"d{number}#0": number for number in numbers}


BAD = [
    (None, "passage 'd0#0': the vector of dense model 'dense' is missing"),
    ({"dense": unit(np.ones(12))}, "vector of dense model 'other' is missing"),
    ({"third": np.ones(3)}, "no dense model 'third': its dense models are dense, other"),
    ({"dense": unit(np.ones(11)), "other": np.ones(7)}, r"dense vector 'dense' must be 12 finite numbers, got shape \[11\]"),
    ({"dense": unit(np.ones((1, 12))), "other": np.ones(7)}, r"got shape \[1, 12\]"),
    ({"dense": np.full(12, np.nan), "other": np.ones(7)}, "must be 12 finite numbers"),
    ({"dense": ["a"] * 12, "other": np.ones(7)}, "must be numbers"),
    ({"dense": np.ones(12), "other": np.ones(7)}, "'dense' has length 3.464"),
    ({"dense": np.zeros(12), "other": np.ones(7)}, "'dense' has length 0"),
    ({"dense": unit(np.ones(12)), "other": np.full(7, 1e4)}, "shorter than 1000"),
]


@pytest.mark.parametrize(("dense", "message"), BAD, ids=range(len(BAD)))
def test_what_is_no_vector_of_each_model_is_refused_and_changes_nothing(index, dense, message):
    with index.writer() as writer:
        with pytest.raises(UsageError, match=message):
            writer.put(passage("d0"), VECTORS[0], dense=dense)
        assert not writer.changed
        writer.commit()
    assert index.version == 0


def test_an_index_without_dense_models_is_as_it_was(tmp_path):
    plain = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA)
    with plain.writer() as writer:
        with pytest.raises(UsageError, match="no dense model 'dense': it has none"):
            writer.put(passage("d0"), VECTORS[0], dense={"dense": np.ones(3)})
        writer.put(passage("d0"), VECTORS[0])
        writer.commit()
    version = json.loads((plain.path / "versions/1.json").read_bytes())
    assert (version["format_version"], "dense" in version) == (4, False)
    assert not [name for name in version["segments"][0]["files"] if name.startswith("dense")]
    with pytest.raises(UsageError, match="no dense model 'dense': it has none"):
        plain.dense_search("dense", np.ones(3), 5)
    assert (plain.dense, plain.dense_vectors(["d0#0"])) == ({}, {"d0#0": {}})


def test_an_index_with_dense_models_has_a_format_of_its_own(index):
    put(index, range(3))
    path = index.path / "versions/1.json"
    version = json.loads(path.read_bytes())
    assert version["format_version"] == 5
    assert version["dense"] == {"dense": {"dim": 12, "normalized": True}, "other": {"dim": 7, "normalized": False}}
    files = version["segments"][0]["files"]
    assert files["dense-dense.npy"]["bytes"] == 128 + 3 * 12 and files["dense-dense.scales.npy"]["bytes"] == 128 + 3 * 4
    with pytest.raises(LocalIndexError, match="format version 4 .* reads 5"):
        type(index.snapshot.version).from_json(path.read_bytes().replace(b'"format_version": 5', b'"format_version": 4'), "x")


@pytest.mark.parametrize("vector", [np.ones(11), np.ones((1, 12)), np.full(12, np.inf), np.full(12, 1e38), ["a"] * 12])
def test_a_query_of_another_shape_is_refused(index, vector):
    for ask in (lambda: index.dense_search("dense", vector, 5), lambda: index.dense_scores("dense", vector, ["d0#0"])):
        with pytest.raises(UsageError, match="query vector of dense model 'dense'"):
            ask()
    with pytest.raises(UsageError, match="k must be a whole number of at least 1"):
        index.dense_search("dense", np.ones(12), 0)


def test_filters_and_ids_select_before_ranking(index):
    put(index, range(20))
    put(index, range(20, 60))
    for where, kept in (({"n": {"$lt": 30}}, range(30)), ({"n": 7}, [7]), ({"n": 99}, [])):
        check_dense(index, numbers_of(kept), parse_filter(where, SCHEMA))
    asked = dense_of(index, 7)["dense"]
    found = index.dense_search("dense", asked, 3, ids=["d1", "d50", "nobody"]).scores
    assert set(found) == {"d1#0", "d50#0"} and list(found.values()) == sorted(found.values(), reverse=True)


def test_equal_scores_stand_in_order_of_insertion_and_passages_without_rows_are_not_found(index):
    same = dense_of(index, 1)
    with index.writer() as writer:
        for number in (5, 3, 8, 1):
            writer.put(passage(f"d{number}"), VECTORS[number], dense=same)
        writer.put(passage("empty"), VECTORS[0][:0], dense=same)
        writer.commit()
        writer.put(passage("d0"), VECTORS[0], dense=same)
        writer.commit()
    assert list(index.dense_search("dense", same["dense"], 3).scores) == ["d5#0", "d3#0", "d8#0"]
    assert list(index.dense_search("dense", same["dense"], 9).scores) == ["d5#0", "d3#0", "d8#0", "d1#0", "d0#0"]
    assert set(index.dense_vectors(["empty#0", "unknown"])) == {"empty#0"}


def test_merges_and_compaction_keep_stored_vectors_to_the_bit(tmp_path, monkeypatch):
    bundle = fake_bundle(tmp_path / "b", codebook=train_codebook(np.concatenate(VECTORS), centroids=16), dense=DENSE)
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    monkeypatch.setattr(committing, "MAX_SEGMENTS", 2)
    put(index, range(10))
    before = index.dense_vectors(numbers_of(range(10)))
    for first in range(10, 40, 5):
        put(index, range(first, first + 5))
    with index.writer() as writer:
        writer.delete_document("d3")
        writer.commit(compact=True)
    kept = [number for number in range(40) if number != 3]
    check_dense(index, numbers_of(kept))
    for id_, vectors in index.dense_vectors(numbers_of(kept[:9])).items():
        for name, vector in vectors.items():
            np.testing.assert_array_equal(vector, before[id_][name])
    index.verify()


def test_a_new_codebook_leaves_dense_vectors_where_they_are(index):
    """Training decodes and encodes all token vectors again: a dense row is rounded to what it was."""
    put(index, range(6))
    before = index.dense_vectors(numbers_of(range(6)))
    put(index, range(6, 64))
    assert len(index.snapshot.version.segments) == 1
    check_dense(index, numbers_of(range(64)))
    for id_, vectors in index.dense_vectors(before).items():
        for name, vector in vectors.items():
            np.testing.assert_allclose(vector, before[id_][name], rtol=1e-6)


def test_codes_that_come_ready_made_have_dense_vectors_too(tmp_path):
    book = train_codebook(np.concatenate(VECTORS), centroids=16)
    bundle = fake_bundle(tmp_path / "b", codebook=book, dense=DENSE)
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    with index.writer() as writer:
        assert writer.takes_codes_of(book)
        for number in range(20):
            codes = book.assign(VECTORS[number])
            packed = codes, book.encode_residuals(VECTORS[number], codes)
            with pytest.raises(UsageError, match="'dense' is missing"):
                writer.put_encoded(passage(f"d{number}", n=number), packed)
            writer.put_encoded(passage(f"d{number}", n=number), packed, dense_of(index, number))
        writer.flush()
    with index.writer(resume=True) as writer:
        assert writer.takes_codes_of(book)
        writer.put(passage("d20", n=20), VECTORS[20], dense=dense_of(index, 20))
        writer.commit()
    check_dense(index, numbers_of(range(21)))


def test_rollback_and_an_older_version_have_their_own_vectors(index):
    put(index, range(5), "first")
    with index.writer() as writer:
        writer.put(passage("d0", n=0), VECTORS[0], dense=dense_of(index, 33))
        writer.delete_document("d1")
        writer.commit()
    check_dense(index, {**numbers_of(range(2, 5)), "d0#0": 33})
    check_dense(LocalIndex.open(index.path, version="first"), numbers_of(range(5)))
    with index.writer() as writer:
        writer.rollback("first")
    check_dense(index, numbers_of(range(5)))


def test_files_that_do_not_fit_are_refused_by_name(index, tmp_path):
    put(index, range(5))
    version = index.snapshot.version
    entry = version.segments[0]
    for name in ("dense-dense.npy", "dense-other.scales.npy"):
        files = {file: listed for file, listed in entry.files.items() if file != name}
        lacking = dataclasses.replace(version, segments=(dataclasses.replace(entry, files=files),))
        with pytest.raises(LocalIndexError, match=f"its version does not list '{name}'"):
            type(index.snapshot)(index.path, lacking)
    wider = dataclasses.replace(version, dense={"dense": dataclasses.replace(version.dense["dense"], dim=13)})
    with pytest.raises(LocalIndexError, match=r"dense-dense\.npy has shape \(5, 12\), not \(5, 13\)"):
        type(index.snapshot)(index.path, wider)
    shutil.copytree(index.path, tmp_path / "copy")
    (tmp_path / "copy/segments/1/dense-other.npy").unlink()
    with pytest.raises(LocalIndexError, match=r"dense-other\.npy is missing"):
        LocalIndex.open(tmp_path / "copy")


def test_another_engines_index_cannot_have_them(tmp_path, bundle):
    from golden.make_own_indexes import INDEXES

    wide = fake_bundle(tmp_path / "b", dim=np.load(INDEXES / "queries.npy").shape[-1], dense=DENSE)
    with pytest.raises(LocalIndexError, match=r"has dense models \(dense, other\)"):
        import_index(INDEXES / "fast-plaid-2", tmp_path / "i", bundle=wide)
    assert not (tmp_path / "i").exists()
