"""Commits that fail or are killed between their steps, damaged old versions, a disk that fills up."""

import errno
import os

import numpy as np
import pytest
from plaid_tools import DIM, fake_bundle, passage, token_vectors, unit

import late_interaction.plaid.store.versions as versions_module
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.writing import committing

VECTORS = token_vectors(np.random.default_rng(0), 40)
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def index(tmp_path):
    return LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}))


def fill(index, numbers, name=""):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}"), VECTORS[number])
        return writer.commit(name)


def known(index):
    return [(version.number, version.name) for version in LocalIndex.open(index.path).versions()]


def refusing(name, patch):
    """Writing the file `name` fails from now on."""
    write = versions_module.atomic_write

    def atomic_write(path, data):
        if path.name == name:
            raise FULL
        write(path, data)

    patch.setattr(versions_module, "atomic_write", atomic_write)


def test_rollback_to_a_damaged_version_changes_nothing(index):
    fill(index, range(5), "kept")
    with index.writer() as writer:
        for number in range(5):
            writer.delete_document(f"d{number}")
        writer.put(passage("z"), VECTORS[9])
        writer.commit()
    path = index.path / "segments/1/texts.npy"
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (whole[:-3], flipped):
        path.write_bytes(damaged)
        with index.writer() as writer, pytest.raises(LocalIndexError, match=r"texts\.npy"):
            writer.rollback("kept")
        assert LocalIndex.open(index.path).version == 2
        with pytest.raises(LocalIndexError, match=r"texts\.npy"):
            index.verify()
    path.write_bytes(whole)
    with index.writer() as writer:
        assert writer.rollback("kept").passages == 5


def test_a_version_that_does_not_open_is_never_published(index, monkeypatch):
    fill(index, range(5))
    build = committing.build_segment

    def damaging(root, name, *args):
        entry = build(root, name, *args)
        (root / "segments" / name / "codes.npy").unlink()
        return entry

    with index.writer() as writer:
        writer.put(passage("new"), VECTORS[7])
        with monkeypatch.context() as patch:
            patch.setattr(committing, "build_segment", damaging)
            with pytest.raises(LocalIndexError, match=r"codes\.npy is missing"):
                writer.commit()
        assert LocalIndex.open(index.path).version == 1
        assert writer.commit().passages == 6


@pytest.mark.parametrize("how", ["fails", "killed"])
def test_a_commit_that_ends_before_current_leaves_no_version(index, monkeypatch, how):
    fill(index, range(5))
    with monkeypatch.context() as patch, index.writer() as writer:
        refusing("CURRENT", patch)
        if how == "killed":
            patch.setattr("late_interaction.plaid.writing.writer.remove_uncommitted", lambda root: None)
        writer.put(passage("ghost"), VECTORS[7])
        with pytest.raises(LocalIndexError, match=r"version 1 is still current.*No space"):
            writer.commit("release")
    assert (index.path / "versions/2.json").exists() == (how == "killed")
    assert known(index) == [(0, ""), (1, "")]
    with index.writer(resume=True) as writer:
        assert set(writer.pending) == {"ghost#0"}  # the commit had flushed it
        writer.discard()
    fill(index, [8], "release")
    assert known(index) == [(1, ""), (2, "release")]
    assert index.passage("ghost#0") is None
    with index.writer() as writer:
        assert writer.rollback("release").passages == 6


def test_a_phantom_is_replaced_by_the_next_commit_of_the_same_writer(index, monkeypatch):
    with index.writer() as writer:
        with monkeypatch.context() as patch:
            refusing("CURRENT", patch)
            writer.put(passage("a"), VECTORS[0])
            with pytest.raises(LocalIndexError, match="version 0 is still current"):
                writer.commit("x")
        assert writer.commit("x").passages == 1
    assert known(index) == [(0, ""), (1, "x")]
    index.verify()


def test_a_flipped_byte_in_any_version_is_found(index):
    fill(index, range(5), "kept")
    fill(index, range(5, 9))
    path = index.path / "versions/1.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 29):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for act in (index.verify, index.versions):
            with pytest.raises(LocalIndexError, match=r"1\.json"):
                act()
    path.write_bytes(whole)
    index.verify()


def test_a_version_that_cannot_be_read_is_never_removed(index):
    fill(index, range(5), "kept")
    fill(index, range(5, 9))
    (index.path / "versions/1.json").write_bytes(b"garbage")
    before = sorted(path for path in index.path.rglob("*") if path.is_file() and "pending" not in path.parts)
    with index.writer() as writer:
        writer.put(passage("q"), VECTORS[10])
        for act in (writer.commit, writer.prune, lambda: writer.rollback("kept")):
            with pytest.raises(LocalIndexError, match=r"1\.json.*delete it"):
                act()
        assert sorted(path for path in index.path.rglob("*") if path.is_file() and "pending" not in path.parts) == before
        (index.path / "versions/1.json").unlink()
        writer.commit()
    assert [number for number, _ in known(index)] == [2, 3]
    index.verify()


def test_a_current_that_could_not_be_made_durable_is_not_called_the_old_version(index, monkeypatch):
    fill(index, range(5))
    sync = os.fsync

    def fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
        if path == str(index.path) and index.path.joinpath("CURRENT").read_text().startswith("2 "):
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    with index.writer() as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            writer.put(passage("new"), VECTORS[7])
            with pytest.raises(LocalIndexError, match="version 2 is current.*may bring back version 1"):
                writer.commit()
        with pytest.raises(LocalIndexError, match="open a new writer"):
            writer.put(passage("newer"), VECTORS[8])
    assert index.version == 2
    assert LocalIndex.open(index.path).passages == 6
    assert known(index) == [(0, ""), (1, ""), (2, "")]  # what a power failure may bring back is not pruned
    assert fill(index, [9]).passages == 7


def test_a_full_disk_tears_no_hole_into_the_log(index, monkeypatch, tmp_path):
    """Records larger than the buffer, refused after half of their bytes: later ones are found by `resume`."""
    big = unit(np.random.default_rng(1).standard_normal((20_000, DIM)))
    write = os.pwrite
    with index.writer() as writer:
        writer.put(passage("a"), big)
        writer.flush()
        writer.put(passage("b"), VECTORS[1])
        with monkeypatch.context() as patch:
            room = [1_000_000]

            def pwrite(descriptor, data, place):
                if not room:
                    raise FULL
                return write(descriptor, data[: room.pop()], place)

            patch.setattr(os, "pwrite", pwrite)
            for _ in range(2):
                with pytest.raises(LocalIndexError, match="No space"):
                    writer.put(passage("c"), big)
                with pytest.raises(LocalIndexError, match="No space"):
                    writer.flush()
        assert set(writer.pending) == {"a#0", "b#0"}
        writer.put(passage("d"), VECTORS[2])
        writer.put(passage("e"), big)
        writer.flush()
    with index.writer(resume=True) as writer:
        assert set(writer.pending) == {"a#0", "b#0", "d#0", "e#0"}
        assert writer.commit().token_vectors == 40_000 + len(VECTORS[1]) + len(VECTORS[2])
    assert index.passage("b#0") == passage("b")


def test_a_log_that_failed_to_become_durable_is_refused_from_then_on(index, monkeypatch):
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.flush()
        writer.put(passage("b"), VECTORS[1])
        with monkeypatch.context() as patch:

            def fsync(_):
                raise OSError(errno.EIO, "Input/output error")

            patch.setattr(os, "fsync", fsync)
            with pytest.raises(LocalIndexError, match="could not be made durable"):
                writer.flush()
        for act in (writer.flush, writer.commit, lambda: writer.put(passage("c"), VECTORS[2])):
            with pytest.raises(LocalIndexError, match="could not be made durable"):
                act()
    with index.writer(resume=True) as writer:
        assert set(writer.pending) == {"a#0"}


def test_a_closed_writer_says_so(index):
    with index.writer() as writer:
        pass
    for act in (
        lambda: writer.put(passage("a"), VECTORS[0]),
        lambda: writer.delete_document("a"),
        lambda: writer.delete_passage("a#0"),
        writer.flush,
        writer.commit,
        writer.prune,
        writer.discard,
        lambda: writer.rollback(0),
    ):
        with pytest.raises(UsageError, match="is closed"):
            act()


def test_a_forked_child_does_not_keep_the_lock(index):
    writer = index.writer()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        refused = False
        try:
            writer.put(passage("a"), VECTORS[0])
        except UsageError:
            refused = True
        writer.__exit__(None, None, None)
        os.read(reading, 1)  # until the parent is done
        os._exit(0 if refused else 1)
    try:
        with pytest.raises(LocalIndexError, match="being written"):
            index.writer()
        writer.__exit__(None, None, None)
        index.writer().__exit__(None, None, None)
    finally:
        os.write(writing, b"x")
        assert os.waitpid(child, 0)[1] == 0
        os.close(reading)
        os.close(writing)


def test_what_a_killed_writer_left_is_removed(index):
    fill(index, range(3))
    left = [".CURRENT.abc", "versions/.2.json.abc", "codebooks/.0123.npz.abc", "versions/2.json", "pending/.log.abc"]
    for name in left:
        (index.path / name).write_bytes(b"half")
    staging = index.path.parent / ".i.staging-0123456789abcdef"
    (staging / "versions").mkdir(parents=True)
    mine = [index.path.parent / ".i.backup12", index.path.parent / ".other.staging-0123456789abcdef"]
    for folder in mine:
        folder.mkdir()
    assert known(index) == [(0, ""), (1, "")]
    with index.writer():
        pass
    assert not any((index.path / name).exists() for name in left)
    assert not staging.exists()
    assert all(folder.exists() for folder in mine)
    index.verify()


def test_tuning_never_drops_what_waits(index):
    fill(index, range(40))
    tuned = index.tune(VECTORS[:5], recall=0.5)
    with index.writer() as writer:
        writer.put(passage("new"), VECTORS[0])
        with pytest.raises(UsageError, match="uncommitted changes"):
            writer.store_tuned(tuned)
        assert writer.commit().passages == 41


def test_a_writer_that_is_given_nothing_writes_no_log(index):
    with index.writer():
        pass
    assert not (index.path / "pending").exists()
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
    assert list((index.path / "pending").iterdir()) == []
