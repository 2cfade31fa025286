"""The one vector of each passage that candidates pooled search: commits make it of the rows, and keep it with the segment."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import DENSE, DIM, dense_of, fake_bundle, passage, token_vectors, unit
from vespa_bundles import small_lemur, with_lemur

from late_interaction.bundle import MeasuredCandidates, write_manifest
from late_interaction.codebook_training import train_codebook
from late_interaction.errors import BundleError, LocalIndexError, UsageError
from late_interaction.filters import parse_filter
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.one_vector import _loaded, one_vector
from late_interaction.one_vector.mean import MeanVector
from late_interaction.plaid import ONE_VECTOR, LocalIndex, Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 64)
LEMUR = small_lemur(DIM, 8)
ASKED = unit(np.random.default_rng(4).standard_normal(8))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return with_lemur(fake_bundle(tmp_path_factory.mktemp("bundle") / "b", dense=DENSE))


@pytest.fixture
def index(tmp_path, bundle):
    return LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, codec="float32")


def put(index, numbers, vectors=VECTORS, **options):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", n=number), vectors[number], dense=dense_of(index, number))
        writer.commit(**options)
    index.refresh()


def check(index, numbers, vectors=VECTORS, where=None, asked=ASKED, encoding=LEMUR):
    """A search finds all of `numbers`, in the order of the products with what the encoding makes of their rows."""
    exact = {f"d{number}#0": float(encoding.passage(vectors[number]) @ asked) for number in numbers}
    found = index.dense_search(ONE_VECTOR, asked, 100, where=where).scores
    assert set(found) == set(exact)
    assert found == pytest.approx(exact, abs=0.03)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert index.dense_scores(ONE_VECTOR, asked, [*exact, "unknown"]).scores == pytest.approx(found, abs=1e-5)


def test_commits_deletions_changes_and_compaction_keep_it(index):
    put(index, range(20))
    put(index, range(20, 30))
    check(index, range(30))
    changed = [*VECTORS]
    changed[3], changed[4] = VECTORS[40], VECTORS[41]
    with index.writer() as writer:
        writer.delete_document("d7")
        writer.put(passage("d3", n=3), changed[3], dense=dense_of(index, 3))
        writer.put(passage("d4", n=4), changed[4], dense=dense_of(index, 4))
        writer.update_metadata("d4", {"n": 44})
        writer.update_metadata("d5", {"n": 55})
        writer.commit()
    index.refresh()
    left = [number for number in range(30) if number != 7]
    check(index, left, changed)
    check(index, [5], changed, where=parse_filter({"n": 55}, SCHEMA))
    put(index, [], compact=True)
    check(index, left, changed)
    index.verify()
    assert set(index.dense) == set(DENSE) and set(index.dense_vectors(["d3#0"])["d3#0"]) == set(DENSE)


def test_it_is_made_again_of_what_a_killed_writer_left(index, bundle):
    with index.writer() as writer:
        writer.put(passage("d1"), VECTORS[1], dense=dense_of(index, 1))
        writer.flush()
    with LocalIndex.open(index.path).writer(resume=True) as writer:
        writer.commit()
    index.refresh()
    check(index, [1])


def test_a_codebook_that_is_trained_again_leaves_it_as_it_was(tmp_path, bundle, monkeypatch):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    put(index, range(3))
    before = index.dense_search(ONE_VECTOR, ASKED, 100).scores
    monkeypatch.setattr("late_interaction.plaid.writing.committing.OUTGROWN", 1)
    put(index, range(3, 40))
    after = index.dense_search(ONE_VECTOR, ASKED, 100).scores
    assert index.snapshot.version.trained_on > 100
    assert {id_: after[id_] for id_ in before} == pytest.approx(before, abs=1e-5)
    check(index, range(40))


def test_rows_that_come_encoded_are_decoded_for_it(tmp_path, bundle):
    book = train_codebook(np.concatenate(VECTORS), bits=4, centroids=32)
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)
    with index.writer() as writer:
        assert writer.takes_codes_of(book)
        for number in range(12):
            writer.put_encoded(passage(f"d{number}", n=number), book.encode(VECTORS[number]), dense_of(index, number))
        writer.commit()
    index.refresh()
    decoded = [book.decode(*book.encode(rows)) for rows in VECTORS[:12]]
    check(index, range(12), decoded)


def test_shards_answer_as_one_index(tmp_path, bundle, index):
    put(index, range(30))
    with ShardedIndex.create(
        tmp_path / "s", bundle=bundle, schema=SCHEMA, sharding=Sharding(2), storage=Storage("float32")
    ) as shards:
        put(shards, range(30))
        check(shards, range(30))
        assert shards.one_vector == index.one_vector == "lemur"
        assert shards.dense_search(ONE_VECTOR, ASKED, 5).scores == pytest.approx(
            index.dense_search(ONE_VECTOR, ASKED, 5).scores, abs=1e-5
        )


def test_passages_without_rows_are_not_found(index):
    with index.writer() as writer:
        writer.put(passage("d0"), VECTORS[0], dense=dense_of(index, 0))
        writer.put(passage("empty"), np.zeros((0, DIM), np.float32), dense=dense_of(index, 1))
        writer.commit()
    index.refresh()
    check(index, [0])


def test_an_index_of_means(tmp_path):
    measured = MeasuredCandidates("pooled", 500, 0.99, 0.98, "mean")
    plain = fake_bundle(tmp_path / "b")
    bundle = write_manifest(plain.path, dataclasses.replace(plain.manifest, candidates=measured))
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, codec="float32")
    put(index, range(10))
    assert index.one_vector == "mean"
    check(index, range(10), asked=unit(np.ones(DIM)), encoding=MeanVector(DIM))


def test_the_format_says_so_and_other_indexes_are_as_they_were(index, tmp_path):
    put(index, [0])
    version = json.loads((index.path / "versions/1.json").read_bytes())
    assert version["format_version"] == 6
    assert version["one_vector"] == {"encoding": "lemur", "dim": 8, "normalized": False}
    assert {"dense-one-vector.npy", "dense-one-vector.scales.npy"} < set(version["segments"][0]["files"])
    plain = LocalIndex.create(tmp_path / "plain", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA)
    assert plain.one_vector == "" and "one_vector" not in json.loads((plain.path / "versions/0.json").read_bytes())
    with pytest.raises(UsageError, match="one-vector"):
        plain.dense_search(ONE_VECTOR, ASKED, 5)


@pytest.mark.parametrize("vector", [np.ones(7), np.full(8, np.nan), "text"])
def test_a_query_that_does_not_fit_is_refused(index, vector):
    with pytest.raises(UsageError):
        index.dense_search(ONE_VECTOR, vector, 5)


def test_a_damaged_file_is_found(index):
    put(index, range(5))
    file = next(index.path.glob("segments/*/dense-one-vector.npy"))
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(LocalIndexError, match="one-vector"):
        index.verify()


def test_a_bundle_whose_parameters_are_gone_is_refused(tmp_path, bundle):
    gone = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, codebooks={"lemur": "codebooks/x.npz"}))
    with pytest.raises((BundleError, KeyError)):
        LocalIndex.create(tmp_path / "i", bundle=gone, schema=SCHEMA)


def cut(file):
    file.write_bytes(file.read_bytes()[:500])


def flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def other(file):
    small_lemur(DIM, 4).save(file)


def without_its_section(file):
    path = file.parent.parent / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["files"][manifest["codebooks"].pop("lemur")]
    path.write_text(json.dumps(manifest))
    file.unlink()


@pytest.mark.parametrize("damage", [Path.unlink, cut, flipped, other, without_its_section])
def test_an_index_whose_parameters_are_damaged_says_so_and_stays_as_it_is(index, damage):
    put(index, range(5))
    damage(next(index.path.glob("bundle/codebooks/lemur-*")))
    _loaded.cache_clear()
    opened = LocalIndex.open(index.path)
    with pytest.raises((BundleError, LocalIndexError)):
        one_vector(opened.bundle, opened.one_vector)
    with pytest.raises((BundleError, LocalIndexError)), opened.writer() as writer:
        writer.put(passage("d9"), VECTORS[9], dense=dense_of(opened, 9))
        writer.commit()
    with pytest.raises(LocalIndexError):
        opened.verify()
    assert LocalIndex.open(index.path).snapshot.version.number == index.snapshot.version.number


def test_more_than_the_index_has_are_all(index):
    put(index, [])
    assert not index.dense_search(ONE_VECTOR, ASKED, 10_000).scores
    put(index, [3])
    check(index, [3])
    assert list(index.dense_search(ONE_VECTOR, ASKED, 10_000).scores) == ["d3#0"]
    with index.writer() as writer:
        writer.delete_document("d3")
        writer.commit()
    index.refresh()
    assert not index.dense_search(ONE_VECTOR, ASKED, 10_000).scores


def test_token_vectors_of_one_dimension(tmp_path):
    vectors = [np.array(rows, np.float32)[:, None] for rows in ([1], [-1, 1, 1], [-1], [1, -1])]
    measured = MeasuredCandidates("pooled", 500, 0.99, 0.98, "mean")
    plain = fake_bundle(tmp_path / "b", dim=1)
    bundle = write_manifest(plain.path, dataclasses.replace(plain.manifest, candidates=measured))
    index = LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA, codec="float32")
    put(index, range(4), vectors)
    check(index, range(4), vectors, asked=np.ones(1, np.float32), encoding=MeanVector(1))
