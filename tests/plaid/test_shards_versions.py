"""Versions of an index of shards: one number and one name for all, whatever is killed, refused or damaged in between."""

import shutil

import numpy as np
import pytest
from kill_points import before_every_file_operation
from plaid_tools import fake_bundle, passage, queries_from, token_vectors

from late_interaction.codebook_training import train_codebook
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding, ShardSettings
from late_interaction.plaid.shards.intent import Intent, read_intent, remove_intent, write_intent
from late_interaction.plaid.shards.layout import shard_path
from late_interaction.plaid.store.versions import Tuned
from late_interaction.plaid.writing.writer import IndexWriter

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 120)
PATIENT = ShardSettings(timeout=300, start=300)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    codebook = train_codebook(np.concatenate(VECTORS), bits=4, centroids=32)
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b", codebook=codebook)


@pytest.fixture
def index(tmp_path, bundle):
    with ShardedIndex.create(
        tmp_path / "i", bundle=bundle, schema=SCHEMA, sharding=Sharding(3), storage=Storage("float32"), settings=PATIENT
    ) as index:
        yield index


def put(index, numbers, name="", **options):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", n=number), VECTORS[number])
        return writer.commit(name, **options)


def ids(index):
    return {p.document_id for p in index.iter_passages()}


def named(numbers):
    return {f"d{number}" for number in numbers}


def known(index):
    return [(version.number, version.name, version.passages) for version in index.versions()]


def numbers_of_shards(index):
    return [LocalIndex.open(shard_path(index.path, shard)).version for shard in range(index.sharding.count)]


def refusing_from(patch, name, after):
    """The method `name` of the writers of shards fails from its call `after` on."""
    real, calls = getattr(IndexWriter, name), []

    def refuse(self, *args, **kwargs):
        if len(calls) == after:
            raise LocalIndexError("refused")
        calls.append(None)
        return real(self, *args, **kwargs)

    patch.setattr(IndexWriter, name, refuse)


def test_every_commit_gives_all_shards_the_same_number(index):
    assert put(index, [1]).version == 1  # two of the three have nothing new
    assert put(index, range(30)).version == 2
    assert numbers_of_shards(index) == [2, 2, 2]
    assert put(index, [], "kept").version == put(index, []).version == 3
    assert put(index, [], compact=True).version == 4
    assert known(index) == [(3, "kept", 30), (4, "", 30)]
    assert index.version == 4
    index.verify()


def test_rollback_to_a_number_and_to_a_name(index):
    put(index, range(30), "thirty")
    put(index, range(60))
    with index.writer() as writer:
        writer.delete_document("d7")
        writer.commit()
        writer.put(passage("lost", n=1), VECTORS[0])
        assert writer.rollback("thirty").passages == 30
    assert ids(index) == named(range(30)) and index.version == 4
    with index.writer() as writer:
        assert writer.rollback(3).passages == 59
    assert ids(index) == named(range(60)) - {"d7"}
    assert numbers_of_shards(index) == [5, 5, 5]
    put(index, [7])
    assert ids(index) == named(range(60))
    index.verify()


def test_versions_are_pruned_in_all_shards_but_for_the_named(index):
    for numbers, name in ((range(9), "nine"), (range(20), ""), (range(30), ""), (range(40), "")):
        put(index, numbers, name)
    assert known(index) == [(1, "nine", 9), (3, "", 30), (4, "", 40)]
    with index.writer() as writer:
        with pytest.raises(UsageError, match="at least 1"):
            writer.prune(0)
        assert writer.prune() == [3]
        assert writer.prune() == []
    assert known(index) == [(1, "nine", 9), (4, "", 40)]


def test_faults_of_names_and_versions_change_no_shard(index):
    put(index, range(30), "a")
    with index.writer() as writer:
        for name, message in (("a", "named 'a'"), ("12", "cannot be a number")):
            with pytest.raises(UsageError, match=message):
                writer.commit(name)
        for to, message in ((77, r"i has no version 77; it has: 0, 1 \(a\)"), ("", "no version ''")):
            with pytest.raises(LocalIndexError, match=message):
                writer.rollback(to)
        writer.put(passage("new", n=1), VECTORS[0])
        assert writer.commit().version == 2
    assert numbers_of_shards(index) == [2, 2, 2]


def test_rollback_to_a_version_that_is_damaged_in_one_shard_changes_none(index):
    put(index, range(30), "kept")
    put(index, range(60), compact=True)
    (file,) = shard_path(index.path, 2).glob("segments/1/texts.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with index.writer() as writer:
        with pytest.raises(LocalIndexError, match=r"texts\.npy"):
            writer.rollback("kept")
        assert numbers_of_shards(index) == [2, 2, 2]
        file.write_bytes(whole)
        assert writer.rollback("kept").passages == 30


@pytest.mark.parametrize("after", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", ["commit", "rollback", "store_tuned"])
def test_a_step_that_fails_between_shards_is_seen_by_nobody_and_finished_by_the_next_writer(index, monkeypatch, step, after):
    put(index, range(30), "thirty")
    put(index, range(60), compact=True)
    reader = ShardedIndex.open(index.path, PATIENT)
    tuned = index.tune(queries_from(np.random.default_rng(1), VECTORS[:60], 5), recall=0.5) if step == "store_tuned" else None
    if tuned is not None:
        assert reader.refresh() and index.effort.rerank == tuned.rerank
    number = index.version
    with monkeypatch.context() as patch, index.writer() as writer:
        refusing_from(patch, step, after)
        if step == "commit":
            for one in range(50, 90):
                writer.put(passage(f"d{one}", n=1), VECTORS[one])
        act = {
            "commit": lambda: writer.commit("ninety"),
            "rollback": lambda: writer.rollback("thirty"),
            "store_tuned": lambda: writer.store_tuned(tuned),
        }[step]
        with pytest.raises(LocalIndexError, match="refused"):
            act()
        assert sorted(numbers_of_shards(index)) == sorted([number + 1] * after + [number] * (3 - after))
        for refused in (lambda: writer.put(passage("x"), VECTORS[0]), writer.discard, writer.prune, lambda: writer.rollback(1)):
            with pytest.raises(LocalIndexError, match="some shards are at version"):
                refused()
    for opened in (ShardedIndex.open(index.path), reader):  # new and old readers see the version that all have
        assert not opened.refresh()
        assert (opened.version, ids(opened), opened.missing) == (number, named(range(60)), {})
        opened.verify()
    with index.writer():
        pass
    expected = {"commit": range(90), "rollback": range(30), "store_tuned": range(60)}[step]
    assert numbers_of_shards(index) == [number + 1] * 3
    assert reader.refresh()
    for opened in (index, reader, ShardedIndex.open(index.path)):
        assert (opened.version, ids(opened)) == (number + 1, named(expected))
    if step == "commit":
        assert known(index)[-1] == (number + 1, "ninety", 90)
    assert not (index.path / "COMMITTING").exists()


def test_a_commit_that_failed_between_shards_can_be_repeated_by_its_writer(index, monkeypatch):
    with index.writer() as writer:
        for number in range(30):
            writer.put(passage(f"d{number}", n=number), VECTORS[number])
        with monkeypatch.context() as patch:
            refusing_from(patch, "commit", 2)
            for _ in range(2):
                with pytest.raises(LocalIndexError, match="refused"):
                    writer.commit("x")
        assert writer.commit("x").version == 1  # the same commit, not another one
        writer.put(passage("d30", n=30), VECTORS[30])
        assert writer.commit().version == 2
    assert known(index)[-2:] == [(1, "x", 30), (2, "", 31)]


def test_a_step_that_no_shard_has_made_leaves_a_usable_writer(index, monkeypatch):
    with index.writer() as writer:
        writer.put(passage("d1", n=1), VECTORS[1])
        with monkeypatch.context() as patch:
            refusing_from(patch, "commit", 0)
            with pytest.raises(LocalIndexError, match="refused"):
                writer.commit()
        assert not (index.path / "COMMITTING").exists()
        writer.put(passage("d2", n=2), VECTORS[2])
        assert writer.commit().passages == 2


def test_a_shard_that_is_behind_is_missing_and_stops_writers(index, tmp_path):
    """As where one shard alone was restored from an older copy."""
    put(index, range(30))
    shutil.copytree(shard_path(index.path, 1), tmp_path / "old")
    held = len(ids(ShardedIndex.open(index.path)))
    for numbers in ((31,), (32,), (33,)):
        put(index, numbers)
    shutil.rmtree(shard_path(index.path, 1))
    shutil.move(tmp_path / "old", shard_path(index.path, 1))
    opened = ShardedIndex.open(index.path)
    assert opened.version == 4 and 0 < len(ids(opened)) < held
    assert "is at version 1, but other shards are at 4" in opened.missing[1]
    with pytest.raises(LocalIndexError, match="shard-1 cannot be read"):
        opened.verify()
    with pytest.raises(LocalIndexError, match="4, 1, 4"):
        opened.writer()


def test_every_flipped_byte_of_an_interrupted_step_is_found(tmp_path):
    intent = Intent(7, tuned=(Tuned(1, 16, 0.9, 10, 5, 100), Tuned(2, 32, 0.9, 10, 5, 90)))
    assert read_intent(tmp_path) is None
    write_intent(tmp_path, intent)
    assert read_intent(tmp_path) == intent
    file = tmp_path / "COMMITTING"
    whole = file.read_bytes()
    flipped = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(len(whole))]
    for changed in [b"", whole[:-9], bytes(len(whole)), b"[]", b"{}", b"[" * 100_000, *flipped]:
        file.write_bytes(changed)
        try:
            assert read_intent(tmp_path) == intent and changed.split() == whole.split()  # a blank between the words
        except LocalIndexError as error:
            assert "COMMITTING cannot be read" in str(error) or "COMMITTING has changed" in str(error)
    remove_intent(tmp_path)
    assert read_intent(tmp_path) is None


def test_fields_come_to_all_shards_even_after_a_failure_in_between(index, monkeypatch):
    further, calls = MetadataSchema({"lang": FieldType.STRING}), []
    add_fields = IndexWriter.add_fields

    def failing(writer, fields):
        calls.append(fields)
        if len(calls) == 2:
            raise LocalIndexError("the disk is full")
        return add_fields(writer, fields)

    monkeypatch.setattr(IndexWriter, "add_fields", failing)
    number, fields = index.version, dict(index.schema.fields)
    with index.writer() as writer, pytest.raises(LocalIndexError, match="disk is full"):
        writer.add_fields(further)
    index.refresh()
    assert (index.version, dict(index.schema.fields), index.missing) == (number, fields, {})
    with index.writer():
        pass
    assert (index.version, index.missing) == (number + 1, {})
    assert dict(index.schema.fields) == {**fields, "lang": FieldType.STRING}


def test_a_damaged_intent_stops_writers_and_is_found_by_verify(index):
    put(index, range(9))
    (index.path / "COMMITTING").write_bytes(b"{}")
    for act in (index.writer, index.verify):
        with pytest.raises(LocalIndexError, match="COMMITTING has changed"):
            act()
    assert ids(ShardedIndex.open(index.path)) == named(range(9))


def test_a_reader_beside_a_writer_sees_one_version_of_all_shards(index):
    """Every commit puts the same number into one document of each shard."""
    homes = {}
    for number in range(50):
        homes.setdefault(index.sharding.of_document(f"d{number}"), number)
    assert len(homes) == 3
    reader, seen = ShardedIndex.open(index.path), set()
    commit, numbers = IndexWriter.commit, []

    def between(self, *args, **kwargs):
        opened = ShardedIndex.open(index.path)
        for one in (reader, opened):
            one.refresh()
            found = {p.metadata["n"] for p in one.iter_passages()}
            assert len(found) <= 1 and len(ids(one)) in (0, 3), found
            seen.update(found)
        numbers.append(self)
        return commit(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, index.writer() as writer:
        patch.setattr(IndexWriter, "commit", between)
        for turn in range(5):
            for number in homes.values():
                writer.put(passage(f"d{number}", n=turn), VECTORS[number])
            writer.commit()
    assert seen == {0, 1, 2, 3} and len(numbers) == 15


def test_tuning_measures_merged_answers_and_all_shards_take_it(index):
    put(index, range(120))
    tuned = index.tune(queries_from(np.random.default_rng(6), VECTORS, 20), recall=0.95)
    assert tuned.recall >= 0.95 and tuned.token_vectors == index.token_vectors
    assert index.effort.rerank == tuned.rerank and numbers_of_shards(index) == [2, 2, 2]
    for reader in index.readers().values():
        assert reader.snapshot.version.effort.rerank == tuned.rerank
    with index.writer() as writer:
        writer.put(passage("new", n=1), VECTORS[0])
        with pytest.raises(UsageError, match="uncommitted changes"):
            writer.store_tuned(tuned)


@pytest.mark.slow
def test_steps_of_shards_that_are_killed_anywhere_come_whole_or_not_at_all(tmp_path, bundle):
    form = {"bundle": bundle, "schema": SCHEMA, "sharding": Sharding(2), "storage": Storage("float32")}
    index = ShardedIndex.create(tmp_path / "i", **form)

    def build(writer):
        for number in range(20):
            writer.put(passage(f"d{number}", n=number), VECTORS[number])
        writer.flush()
        return lambda: writer.commit("twenty")

    def add(writer):
        for number in range(10, 40):
            writer.put(passage(f"d{number}", n=1), VECTORS[number])
        writer.delete_document("d3")
        writer.flush()
        return lambda: writer.commit(compact=True)

    def back(writer):
        return lambda: writer.rollback("twenty")

    def prune(writer):
        return writer.prune

    def state(index):
        return {p.document_id: p.metadata["n"] for p in index.iter_passages()}

    points = 0
    for step in (build, add, back, prune):
        before, number = state(index), index.version
        with index.writer() as writer:
            copies = before_every_file_operation(index.path, tmp_path / step.__name__, step(writer))
        after = state(index)
        points += len(copies)
        for copy in copies:
            began = (copy / "COMMITTING").exists()
            reader = ShardedIndex.open(copy)
            assert (reader.missing, state(reader)) == ({}, before if reader.version == number else after)
            with reader.writer(resume=True) as resumed:
                resumed.commit()
            assert state(reader) == (before if step is back and not began and reader.version == number else after)
            assert len(set(numbers_of_shards(reader))) == 1
            assert sorted(path.name for path in copy.iterdir()) == ["LOCK", "SHARDS.json", "shard-0", "shard-1"]
            reader.verify()
            shutil.rmtree(copy)
    assert points >= 200
