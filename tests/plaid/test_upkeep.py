"""Versions, rollback, pruning, compaction, growth of a codebook, tuning."""

import json

import numpy as np
import pytest
from plaid_tools import DIM, fake_bundle, passage, queries_from, token_vectors, unit

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from late_interaction.plaid.writing import training
from late_interaction.row_sources import RowFile

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 400)


@pytest.fixture
def index(tmp_path):
    return LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA)


def put(index, numbers, name="", vectors=VECTORS, **options):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", text=f"text {number}", n=number), vectors[number % len(vectors)])
        return writer.commit(name, **options)


def ids(index):
    return {p.document_id for p in index.iter_passages()}


def test_rollback_to_a_number_and_to_a_name(index):
    put(index, range(10), "ten")
    put(index, range(10, 20))
    with index.writer() as writer:
        writer.delete_document("d3")
        writer.commit()
    assert len(ids(index)) == 19
    with index.writer() as writer:
        writer.put(passage("lost"), VECTORS[0])
        summary = writer.rollback("ten")
    assert summary.version == 4
    assert ids(index) == {f"d{n}" for n in range(10)}
    assert ids(LocalIndex.open(index.path)) == ids(index)
    with index.writer() as writer:
        writer.rollback(3)
    assert len(ids(index)) == 19
    index.verify()
    put(index, [50])
    assert len(ids(index)) == 20
    assert len(index.search(VECTORS[0], 100).hits) == 20


def test_versions_are_listed_kept_by_name_and_pruned(index):
    put(index, range(5), "first")
    for number in range(5, 10):
        put(index, [number])
    found = index.versions()
    assert [(v.number, v.name) for v in found] == [(1, "first"), (5, ""), (6, "")]
    assert [v.passages for v in found] == [5, 9, 10]
    with index.writer() as writer:
        assert writer.prune() == [5]
        assert writer.prune() == []
        with pytest.raises(UsageError, match="at least 1"):
            writer.prune(0)
    assert [v.number for v in index.versions()] == [1, 6]
    with index.writer() as writer:
        writer.rollback("first")
    assert ids(index) == {f"d{n}" for n in range(5)}


def test_faults_of_names_and_versions(index):
    put(index, range(3), "a")
    with index.writer() as writer:
        with pytest.raises(UsageError, match="named 'a'"):
            writer.commit("a")
        with pytest.raises(UsageError, match="cannot be a number"):
            writer.commit("12")
        with pytest.raises(LocalIndexError, match=r"no version 77; it has: 0, 1 \(a\)"):
            writer.rollback(77)
        with pytest.raises(LocalIndexError, match="no version ''"):
            writer.rollback("")
    assert index.version == 1


def test_a_version_of_the_same_content_can_be_named_later(index):
    put(index, range(3))
    with index.writer() as writer:
        writer.commit("release")
    assert [(v.number, v.name, v.passages) for v in index.versions()][-1] == (2, "release", 3)


@pytest.mark.parametrize("form", [{}, {"codec": "float32"}, {"codec": "binary"}, {"refine": True, "bits": 1}], ids=str)
def test_compaction_keeps_what_lives_and_trains_anew(tmp_path, form):
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA, **form)
    put(index, range(60))
    put(index, range(40, 200))
    with index.writer() as writer:
        for number in range(0, 50):
            writer.delete_document(f"d{number}")
        writer.commit()
    before = {p.id: p for p in index.iter_passages()}
    old = index.codebook
    summary = put(index, [300], compact=True)
    assert summary.passages == 151
    assert len(index.snapshot.version.segments) == 1
    assert index.snapshot.version.segments[0].deleted_passages == 0
    assert index.codebook.sha256 != old.sha256
    assert {p.id: p for p in index.iter_passages() if p.id != "d300#0"} == before
    index.verify()
    for number in (60, 199, 300):
        Q = VECTORS[number % len(VECTORS)]
        assert index.search(Q, 1, exact=True).hits[0].passage.document_id == f"d{number}" or form.get("codec") == "binary"
    with index.writer() as writer:
        for document in ids(index):
            writer.delete_document(document)
        assert writer.commit(compact=True).passages == 0
    assert index.search(VECTORS[0], 3).hits == []
    put(index, [1])
    assert ids(index) == {"d1"}


def test_compaction_where_nothing_was_put_since_needs_no_log(index):
    put(index, range(60))
    with index.writer() as writer:
        assert writer.commit(compact=True).passages == 60
    assert not (index.path / "pending/log").exists()


@pytest.mark.parametrize("form", [{"bits": 2}, {"bits": 4}, {"refine": True}, {"codec": "binary"}], ids=str)
def test_ten_compactions_change_no_vector(tmp_path, form):
    """Deletions and merges copy codes; drift and growth that ask for a codebook ask once."""
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=SCHEMA, **form)
    put(index, range(100))
    put(index, range(100, 400), compact=True)  # four times the vectors: trains
    assert index.snapshot.version.trained_on == index.token_vectors
    assert index.drift == pytest.approx(0, abs=1e-5)
    codebook, before = index.codebook, {n: index.vectors(f"d{n}#0") for n in range(400)}
    for turn in range(10):
        with index.writer() as writer:
            writer.delete_document(f"d{turn}")
            writer.commit()
            writer.commit(compact=True)
        assert len(index.snapshot.version.segments) == 1
    assert index.codebook.sha256 == codebook.sha256
    for n in range(10, 400):
        np.testing.assert_array_equal(index.vectors(f"d{n}#0"), before[n])


def test_compaction_trains_where_vectors_have_drifted(index):
    put(index, range(200))
    old = index.codebook
    strange = [unit(np.random.default_rng(n).standard_normal((6, DIM))) for n in range(60)]
    put(index, range(1000, 1060), vectors=strange)
    assert index.token_vectors < 2 * index.snapshot.version.trained_on
    drift = index.drift
    with index.writer() as writer:
        writer.commit(compact=True)
    assert (index.codebook.sha256 != old.sha256) == (drift >= 0.03)
    assert drift >= 0.03
    assert index.drift == pytest.approx(0, abs=1e-5)


def test_a_large_index_gets_the_centroids_it_should_have(index, monkeypatch):
    """The sample grows with them, in a file."""
    monkeypatch.setattr(training, "SAMPLE_VECTORS", 100)
    monkeypatch.setattr(training, "IN_FILE_ABOVE", 100)
    monkeypatch.setattr(training, "default_centroids", lambda total: 100)
    samples = []
    real = training.train_codebook
    monkeypatch.setattr(training, "train_codebook", lambda sample, **options: samples.append(sample) or real(sample, **options))
    put(index, range(400))
    assert [(type(sample), len(sample)) for sample in samples] == [(RowFile, 1700)]
    assert 90 <= len(index.codebook.centroids) <= 100
    assert np.mean([np.sum(index.vectors(f"d{n}#0") * VECTORS[n], axis=1).mean() for n in range(400)]) > 0.97


def test_a_sample_is_of_different_rows_in_order():
    rows = np.arange(1000, dtype=np.float32)[:, None]
    for count in (0, 1, 333, 667, 999, 1000):
        sample, ids = training.sample_of([(part, np.int32(part[:, 0])) for part in np.split(rows, 10)], count, 1000, 1)
        assert len(sample) == count
        assert (np.diff(sample[:, 0]) > 0).all()
        assert np.array_equal([] if ids is None else ids, sample[:, 0])


def test_compaction_of_an_empty_index(index):
    with index.writer() as writer:
        assert writer.commit(compact=True).passages == 0


def test_the_bundles_codebook_stays(tmp_path):
    codebook = train_codebook(np.concatenate(VECTORS[:50]))
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b", codebook=codebook), schema=SCHEMA)
    put(index, range(100))
    strange = [unit(np.eye(DIM)[[n % DIM] * 5] + 0.01 * np.random.default_rng(n).standard_normal((5, DIM))) for n in range(300)]
    put(index, range(300), vectors=strange, compact=True)
    assert index.codebook.sha256 == codebook.sha256
    assert len(index.snapshot.version.segments) == 1
    assert index.drift is not None


def test_new_vectors_far_from_every_centroid_get_their_own(index):
    """Passages about something else entirely: without growth their residuals are far off."""
    random = np.random.default_rng(5)
    put(index, range(400))
    before, drift = len(index.codebook.centroids), index.drift
    assert abs(drift) < 0.01
    centres = unit(random.standard_normal((40, DIM)))
    strange = [unit(-centres[random.integers(40, size=12)] + 0.02 * random.standard_normal((12, DIM))) for _ in range(300)]
    strange = [unit(rows * np.sign(random.standard_normal(DIM))) for rows in strange]
    put(index, range(1000, 1300), vectors=strange)
    grown = len(index.codebook.centroids)
    assert grown > before
    index.verify()
    for number in (0, 399, 1000, 1299):  # old segments know fewer centroids
        vectors = VECTORS[number] if number < 400 else strange[number % 300]
        hits = index.search(vectors, 3, settings=SearchSettings(probes=1, rerank=20)).hits
        assert hits[0].passage.document_id == f"d{number}"
    cosine = np.mean([np.sum(index.vectors(f"d{n}#0") * strange[n % 300], axis=1).mean() for n in range(1000, 1300)])
    assert cosine > 0.98
    put(index, [2000], compact=True)
    assert index.drift < 0.02
    assert LocalIndex.open(index.path).passages == 701


def test_tuning_finds_the_least_effort_and_keeps_it(index):
    put(index, range(400))
    queries = queries_from(np.random.default_rng(6), VECTORS, 30)
    low = index.tune(queries, recall=0.5)
    high = index.tune(queries, recall=0.99)
    assert (low.probes, low.rerank) <= (high.probes, high.rerank)
    assert high.recall >= 0.99
    opened = LocalIndex.open(index.path)
    assert opened.snapshot.version.tuned == high
    assert opened.search(queries[0], 5).reranked <= max(high.rerank, 15) or opened.passages <= 400  # few vectors: outright
    found = index.search(queries[0], 5, settings=SearchSettings(rerank=20)).reranked
    assert found <= 20 or opened.token_vectors <= 4096
    put(index, [1])
    assert index.snapshot.version.tuned == high
    for recall in (0, 1.1, -1):
        with pytest.raises(UsageError, match="recall must be"):
            index.tune(queries, recall=recall)
    with pytest.raises(UsageError, match="no query"):
        index.tune([np.empty((0, DIM), np.float32)], recall=0.9)


def test_an_effort_that_the_index_has_outgrown_is_ignored_and_said(index):
    put(index, range(100))
    queries = queries_from(np.random.default_rng(6), VECTORS[:100], 20)
    tuned = index.tune(queries, recall=0.5)
    assert tuned.token_vectors == index.token_vectors
    assert not index.search(queries[0], 5).outgrown
    put(index, range(100, 400))
    assert index.snapshot.version.tuned == tuned
    assert index.snapshot.version.effort is None
    result = index.search(queries[0], 5)
    assert result.outgrown
    assert result.reranked >= 128
    assert not index.search(queries[0], 5, settings=SearchSettings(probes=2, rerank=20)).outgrown
    index.tune(queries, recall=0.5)
    assert not index.search(queries[0], 5).outgrown


def test_the_command_line(index, cli):
    put(index, range(20), "start")
    put(index, range(20, 30))
    path = str(index.path)
    assert "20 passages  start" in cli("index", "versions", path).stdout

    last = lambda done: json.loads(done.stdout.splitlines()[-1])  # noqa: E731
    assert last(cli("index", "info", path, "--json"))["passages"] == 30
    assert last(cli("index", "rollback", path, "start", "--json"))["passages"] == 20
    assert last(cli("index", "name", path, "again", "--json"))["name"] == "again"
    assert last(cli("index", "compact", path, "--json"))["passages"] == 20
    put(index, [100])
    assert len(last(cli("index", "prune", path, "--json"))["removed"]) == 1
    assert last(cli("index", "verify", path, "--json"))["ok"]
    with index.writer() as writer:
        writer.put(passage("left"), VECTORS[0])
        writer.flush()
    assert "index discard" in " ".join(cli("index", "compact", path, code=1).stderr.split())
    assert last(cli("index", "prune", path, "--json"))["removed"] == []
    cli("index", "discard", path)
    assert last(cli("index", "compact", path, "--json"))["passages"] == 21
    assert "no version 'none'" in " ".join(cli("index", "rollback", path, "none", code=1).stderr.split())
