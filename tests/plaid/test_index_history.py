"""Histories of put, delete, commit, reopen against a dictionary; crashes; readers beside a writer."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plaid_tools import DIM, fake_bundle, passage, token_vectors, unit

import late_interaction.plaid.writing.writer as writer_module
from late_interaction.codebook_training import train_codebook
from late_interaction.errors import LocalIndexError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.store.versions import Tuned
from late_interaction.plaid.writing import committing

SCHEMA = MetadataSchema({"n": FieldType.LONG, "word": FieldType.STRING, "tags": FieldType.STRINGS})
VECTORS = token_vectors(np.random.default_rng(0), 64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture(scope="module")
def bundle_with_codebook(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b", codebook=train_codebook(np.concatenate(VECTORS)))


@pytest.fixture
def index(tmp_path, bundle):
    return LocalIndex.create(tmp_path / "i", bundle=bundle, schema=SCHEMA)


def check(index, model):
    """`model`: passage id -> (passage, vectors), in order of the last put."""
    assert list(index.iter_passages()) == [p for p, _ in model.values()]
    assert index.passages == len(model)
    assert index.documents == len({p.document_id for p, _ in model.values()})
    assert index.token_vectors == sum(len(v) for _, v in model.values())
    for id_, (stored, vectors) in model.items():
        assert index.passage(id_) == stored
        assert index.vectors(id_).shape == vectors.shape
        assert (np.sum(index.vectors(id_) * vectors, axis=1) > 0.8).all()
    Q = VECTORS[5][:3]
    found = [hit.passage.id for hit in index.search(Q, 100).hits]
    assert sorted(found) == sorted(id_ for id_, (_, v) in model.items() if len(v))
    assert list(index.score(Q, list(model))) == list(model)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, 2), st.integers(0, 63)),
        st.tuples(st.just("put"), st.integers(0, 5), st.integers(0, 2), st.integers(0, 63)),
        st.tuples(st.just("delete_document"), st.integers(0, 5)),
        st.tuples(st.just("delete_passage"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("commit")),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("resume")),
        st.tuples(st.just("abandon")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_histories_equal_those_of_a_dictionary(tmp_path_factory, bundle, operations):
    index = LocalIndex.create(tmp_path_factory.mktemp("h") / "i", bundle=bundle, schema=SCHEMA)
    committed, waiting = {}, {}
    limit, committing.MAX_SEGMENTS = committing.MAX_SEGMENTS, 2
    writer = index.writer()
    try:
        for name, *args in operations:
            if name == "put":
                document, number, which = args
                new = passage(f"d{document}", number, f"text {which}", n=which, word=f"w{which % 3}", tags=[f"t{which % 2}"])
                vectors = VECTORS[which] if which else np.empty((0, DIM), np.float32)
                writer.put(new, vectors)
                waiting.pop(new.id, None)
                waiting[new.id] = (new, vectors)
            elif name == "delete_document":
                gone = [id_ for id_, (p, _) in waiting.items() if p.document_id == f"d{args[0]}"]
                assert writer.delete_document(f"d{args[0]}") == len(gone)
                for id_ in gone:
                    del waiting[id_]
            elif name == "delete_passage":
                id_ = f"d{args[0]}#{args[1]}"
                assert writer.delete_passage(id_) == int(waiting.pop(id_, None) is not None)
            elif name == "commit":
                summary = writer.commit()
                committed = dict(waiting)
                assert (summary.passages, summary.version) == (len(committed), index.version)
                check(index, committed)
            else:
                if name == "resume":
                    writer.flush()
                writer.__exit__(None, None, None)
                index = LocalIndex.open(index.path)
                check(index, committed)
                writer = index.writer(resume=name == "resume")
                if name != "resume":
                    writer.discard()
                    waiting = dict(committed)
                new = {id_ for id_ in waiting if id_ not in committed or waiting[id_] is not committed[id_]}
                assert set(writer.pending) == new
        writer.commit()
        check(index, waiting)
        index.verify()
        assert len(list((index.path / "versions").iterdir())) <= 2
        assert len(list((index.path / "segments").iterdir())) <= 4
    finally:
        committing.MAX_SEGMENTS = limit
        writer.__exit__(None, None, None)


def test_more_than_eight_segments_become_one(tmp_path, bundle_with_codebook):
    """With a codebook that stays: the codes are copied, so that scores stay as they were."""
    index = LocalIndex.create(tmp_path / "i", bundle=bundle_with_codebook, schema=SCHEMA)
    model = {}
    Q = VECTORS[3]
    with index.writer() as writer:
        for turn in range(9):
            for i in range(3):
                new = passage(f"d{turn * 2 + i}", n=turn)  # one of three replaces a passage of the turn before
                writer.put(new, VECTORS[turn * 3 + i])
                model.pop(new.id, None)
                model[new.id] = (new, VECTORS[turn * 3 + i])
            before = {hit.passage.id: hit.score for hit in index.search(Q, 100).hits}
            writer.commit()
            after = {hit.passage.id: hit.score for hit in index.search(Q, 100).hits}
            kept = {id_ for id_ in before if model[id_][0].metadata["n"] != turn}
            assert {id_: after[id_] for id_ in kept} == pytest.approx({id_: before[id_] for id_ in kept}, abs=1e-5)
    assert len(index.snapshot.version.segments) == 1
    check(index, model)


def test_every_ninth_small_commit_does_not_rewrite_the_index(tmp_path, bundle_with_codebook):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle_with_codebook, schema=SCHEMA)
    model = {}
    with index.writer() as writer:
        for turn in range(30):
            for i in range(60 if not turn else 1):
                new = passage(f"t{turn}-{i}", n=turn)
                model[new.id] = (new, VECTORS[i % 64])
                writer.put(*model[new.id])
            writer.commit()
            assert len(index.snapshot.version.segments) <= 8
            assert index.snapshot.version.segments[0].name == "1"
    check(index, model)


def test_merges_write_each_passage_a_few_times():
    """Commits of one size, of random sizes, and with large ones between: what merging writes in all."""
    random = np.random.default_rng(0)
    one = np.ones(10_000, int)
    for commits, times in ((one[:1000], 5), (one, 10), (random.integers(1, 100, 3000), 10), (np.tile([1] * 9 + [500], 300), 6)):
        sizes, written = [], 0
        for size in commits.tolist():
            sizes.append(size)
            if len(sizes) > 8:
                first = committing.merged_from(sizes)
                sizes[first:] = [sum(sizes[first:])]
                written += sizes[-1]
            assert len(sizes) <= 8
        assert written <= times * commits.sum()


def test_leaving_without_commit_changes_nothing(index):
    with pytest.raises(RuntimeError), index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        raise RuntimeError
    assert LocalIndex.open(index.path).passages == 0
    with index.writer() as writer:
        assert dict(writer.pending) == {}


def test_a_reader_keeps_its_version_while_a_writer_commits(index):
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
        reader = LocalIndex.open(index.path)
        for turn in range(12):  # also past the merge and the removal of the files that the reader mapped
            writer.put(passage("a"), VECTORS[turn + 1])
            writer.put(passage(f"b{turn}"), VECTORS[turn])
            writer.commit()
            assert (reader.version, reader.passages) == (1, 1)
            assert [hit.passage.id for hit in reader.search(VECTORS[0], 5).hits] == ["a#0"]
            assert np.sum(reader.vectors("a#0") * VECTORS[0], axis=1).min() > 0.9
    assert reader.refresh()
    assert not reader.refresh()
    assert (reader.version, reader.passages) == (13, 13)
    assert not LocalIndex.open(index.path).refresh()


def test_a_second_writer_is_refused_by_name(index):
    with index.writer() as writer:
        with pytest.raises(LocalIndexError, match=str(index.path)):
            index.writer()
        with pytest.raises(LocalIndexError, match="being written"):
            LocalIndex.open(index.path).writer(resume=True)
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
    with LocalIndex.open(index.path).writer():
        pass


def killed(index, code):
    """Runs `code` with `index` and `writer` in a process that ends by os._exit, as if it were killed."""
    program = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import numpy as np
        from plaid_tools import passage, token_vectors
        from late_interaction.plaid import LocalIndex
        vectors = token_vectors(np.random.default_rng(0), 64)
        index = LocalIndex.open({str(index.path)!r})
        writer = index.writer(resume=True)
        {code}
        os._exit(9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr


def test_a_killed_writer_leaves_no_lock_and_what_it_flushed(index):
    killed(index, 'writer.put(passage("a"), vectors[0]); writer.put(passage("b"), vectors[1]); writer.flush()')
    assert LocalIndex.open(index.path).passages == 0
    killed(
        index,
        'assert len(writer.pending) == 2; writer.delete_document("a"); writer.put(passage("c"), vectors[2]); writer.flush()',
    )
    with index.writer(resume=True) as writer:
        assert set(writer.pending) == {"b#0", "c#0"}
        writer.commit()
    check(index, {"b#0": (passage("b"), VECTORS[1]), "c#0": (passage("c"), VECTORS[2])})


def test_an_interrupted_run_is_kept_until_it_is_resumed_or_discarded(index):
    """Nobody else's writer makes its log worthless: neither by a new version nor by records of its own."""
    killed(index, 'writer.put(passage("a"), vectors[0]); writer.flush()')
    with index.writer() as writer:
        assert dict(writer.pending) == {}
        assert writer.commit().passages == 0
        assert writer.prune() == []
        for act in (
            lambda: writer.put(passage("b"), VECTORS[1]),
            lambda: writer.delete_document("a"),
            lambda: writer.delete_passage("a#0"),
            lambda: writer.commit("name"),
            lambda: writer.commit(compact=True),
            lambda: writer.rollback(0),
            lambda: writer.store_tuned(Tuned(1, 16, 1.0, 10, 1)),
        ):
            with pytest.raises(LocalIndexError, match=r"--resume.*index discard"):
                act()
    with pytest.raises(LocalIndexError, match="--resume"):
        index.tune([VECTORS[0]], recall=0.9)
    assert index.version == 0
    with index.writer(resume=True) as writer:
        assert set(writer.pending) == {"a#0"}
    with index.writer() as writer:
        writer.discard()
        writer.put(passage("b"), VECTORS[1])
        writer.commit()
    check(index, {"b#0": (passage("b"), VECTORS[1])})
    with index.writer(resume=True) as writer:
        assert dict(writer.pending) == {}


def test_a_torn_tail_is_cut_off_at_any_byte(index):
    path = index.path / "pending/log"
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.flush()
        durable = path.read_bytes()
        writer.put(passage("b"), VECTORS[1])
        writer.flush()
    tail = path.read_bytes()[len(durable) :]
    for size in range(0, len(tail), 7):
        path.write_bytes(durable + tail[:size])
        with index.writer(resume=True) as writer:
            assert set(writer.pending) == {"a#0"}
            writer.put(passage("c"), VECTORS[2])
            writer.flush()
        with index.writer(resume=True) as writer:
            assert set(writer.pending) == {"a#0", "c#0"}
    for place in range(0, len(tail), 11):
        changed = bytearray(durable + tail)
        changed[len(durable) + place] ^= 0x10
        path.write_bytes(changed)
        with index.writer(resume=True) as writer:
            assert set(writer.pending) == {"a#0"}
    path.write_bytes(durable + tail)
    with index.writer(resume=True) as writer:  # whole, though not known to be durable
        assert set(writer.pending) == {"a#0", "b#0"}


def test_a_commit_killed_before_any_file_operation_loses_nothing(index, tmp_path):
    """The folder as it is before each fsync and rename of a commit still opens, resumes, and commits to the same end."""
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.put(passage("b"), VECTORS[1])
        writer.commit()
        writer.put(passage("a", n=2), VECTORS[2])
        writer.put(passage("c"), VECTORS[3])
        writer.delete_document("b")
        writer.flush()
        copies = []

        def copying(real):
            def call(*args, **kwargs):
                target = tmp_path / f"copy-{len(copies)}"
                shutil.copytree(index.path, target)
                copies.append(target)
                return real(*args, **kwargs)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", copying(os.fsync))
            patch.setattr(os, "replace", copying(os.replace))
            writer.commit()
    assert len(copies) > 20
    model = {"a#0": (passage("a", n=2), VECTORS[2]), "c#0": (passage("c"), VECTORS[3])}
    check(index, model)
    old = {"a#0": (passage("a"), VECTORS[0]), "b#0": (passage("b"), VECTORS[1])}
    for copy in copies:
        reader = LocalIndex.open(copy)
        check(reader, old if reader.version == 1 else model)
        with reader.writer(resume=True) as resumed:
            assert set(resumed.pending) == (set(model) if reader.version == 1 else set())
            resumed.commit()
        check(reader, model)
        reader.verify()


def test_damage_is_named(index, tmp_path):
    """Every file of a version, truncated to several lengths or missing, at open, and with one of several bytes flipped, at
    verify."""
    with index.writer() as writer:
        for i in range(6):
            writer.put(passage(f"d{i}", n=i, word="w", tags=["t"]), VECTORS[i])
        writer.commit()
        writer.delete_document("d2")
        writer.commit()
    names = [named.name for named in index.snapshot.version.files()]
    names += [f"versions/{index.version}.json", "CURRENT"]
    assert len(names) > 25
    for name in names:
        path = index.path / name
        whole = path.read_bytes()
        named = path.name.split(".npy")[0]
        for size in {0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 8, len(whole) - 1}:
            path.write_bytes(whole[:size])
            with pytest.raises(LocalIndexError, match=named):
                LocalIndex.open(index.path)
        path.write_bytes(whole + b" ")
        with pytest.raises(LocalIndexError, match=named):
            LocalIndex.open(index.path)
        path.unlink()
        with pytest.raises(LocalIndexError, match=named):
            LocalIndex.open(index.path)
        for place in {0, 9, 60, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole) - 1}:
            for bit in (1, 32, 128):
                changed = bytearray(whole)
                changed[place] ^= bit
                path.write_bytes(changed)
                with pytest.raises(LocalIndexError, match=f"{named}|versions"):
                    LocalIndex.open(index.path, verify=True)
        path.write_bytes(whole)
    (index.path / "bundle/model.onnx").write_bytes(b"NO MODEL")
    with pytest.raises(LocalIndexError, match=r"model\.onnx"):
        LocalIndex.open(index.path).verify()


def test_an_unknown_format_version_is_named(index):
    import hashlib

    path = index.path / "versions/0.json"
    text = path.read_bytes().replace(b'"format_version": 4', b'"format_version": 7')
    path.write_bytes(text)
    (index.path / "CURRENT").write_text(f"0 {hashlib.sha256(text).hexdigest()}\n")
    with pytest.raises(LocalIndexError, match="format version 7"):
        LocalIndex.open(index.path)


def test_a_full_disk_leaves_the_old_version(index, monkeypatch):
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
        writer.put(passage("b"), VECTORS[1])

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "publish", full)
            with pytest.raises(LocalIndexError, match=r"version 1 is still current.*No space"):
                writer.commit()
        assert LocalIndex.open(index.path).passages == 1
        assert writer.commit().passages == 2


def test_vectors_of_later_commits_use_the_first_codebook(index):
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
        sha256 = index.codebook.sha256
        writer.put(passage("b"), unit(np.ones((2, DIM))))
        writer.commit()
    assert index.codebook.sha256 == sha256


def test_a_codebook_of_a_few_vectors_is_replaced_when_the_index_outgrows_it(index):
    """Old passages are encoded again from their decoded vectors, in their old order, deletions applied."""
    model = {}
    with index.writer() as writer:
        for name, which in (("a", [0, 1]), ("b", range(2, 64))):
            for i in which:
                new = passage(f"{name}{i}", n=i)
                writer.put(new, VECTORS[i])
                model[new.id] = (new, VECTORS[i])
            if name == "b":
                assert writer.delete_document("a0") == 1
                del model["a0#0"]
            writer.commit()
            check(index, model)
    assert index.version == 2
    assert index.snapshot.version.trained_on == index.token_vectors
    assert len(index.snapshot.version.segments) == 1
    assert (np.sum(index.vectors("a1#0") * VECTORS[1], axis=1) > 0.95).all()


def test_the_bundles_codebook_is_never_replaced(tmp_path, bundle_with_codebook):
    index = LocalIndex.create(tmp_path / "i", bundle=bundle_with_codebook, schema=SCHEMA)
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
        for i in range(1, 64):
            writer.put(passage(f"b{i}"), VECTORS[i])
        writer.commit()
    assert index.codebook.sha256 == train_codebook(np.concatenate(VECTORS)).sha256
    assert len(index.snapshot.version.segments) == 2
