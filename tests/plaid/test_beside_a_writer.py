"""Readers in other processes and threads while versions come and go."""

import dataclasses
import math
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import fake_bundle, finished, passage, token_vectors

from late_interaction.errors import LocalIndexError
from late_interaction.files import sha256_file
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding
from late_interaction.plaid.store.history import known_versions, remove_unused, verify_versions
from late_interaction.plaid.store.opened import OpenedVersion
from late_interaction.plaid.store.storage import check_file
from query.local import LocalSearch
from query.options import SearchOptions
from query.types import EncodedQuery

VECTORS = token_vectors(np.random.default_rng(0), 64)
ROUNDS = 3000  # of each reader at most: it ends when it has seen five versions
COMMITS = 400  # at most; the writer goes on until the readers are done


@pytest.fixture
def index(tmp_path):
    return LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}))


READER = """
    import sys
    from late_interaction.errors import ColbertVespaError
    from late_interaction.plaid import LocalIndex
    path = sys.argv[1]
    index = LocalIndex.open(path)
    print("ready", flush=True)
    sys.stdin.readline()
    seen = set()
    for turn in range(ROUNDS):
        if len(seen) > 4:
            break
        try:
            if turn % 3 == 0:
                index = LocalIndex.open(path)
            else:
                index.refresh()
            first, second = index.passage("pair-a#0"), index.passage("pair-b#0")
            assert first.text == second.text, (first, second)
            index.verify()
            assert index.versions()
            seen.add(index.version)
        except (ColbertVespaError, AssertionError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
    print(f"seen {len(seen)}", flush=True)
"""


def test_readers_in_other_processes_never_see_damage_or_halves(index):
    """`verify` too: what was pruned while it read is not damaged."""

    def commit(writer, turn):
        for name in ("pair-a", "pair-b"):
            writer.put(passage(name, text=f"turn {turn}"), VECTORS[turn % 64])
        writer.put(passage(f"d{turn % 20}"), VECTORS[turn % 64])
        writer.commit(compact=turn % 10 == 5)
        if turn % 4 == 3:
            writer.prune(1)
        if turn % 10 == 9:
            writer.rollback(index.version)

    read_beside_a_writer(index, READER, 3, commit)


def read_beside_a_writer(index, reader, count, commit):
    """Each of `count` processes says nothing but that it has seen more than four versions. commit: a writer's turn."""
    command = [sys.executable, "-c", textwrap.dedent(reader).replace("ROUNDS", str(ROUNDS)), str(index.path)]
    with index.writer() as writer:
        commit(writer, 0)
        readers = [
            subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=Path(__file__).parents[2]) for _ in range(count)
        ]
        try:
            for process in readers:
                assert process.stdout.readline() == "ready\n"
            for process in readers:
                process.stdin.write("go\n")
                process.stdin.flush()
            for turn in range(1, COMMITS):
                commit(writer, turn)
                if all(process.poll() is not None for process in readers):
                    break
        finally:
            said = [process.communicate()[0].splitlines() for process in readers]
    assert all(len(lines) == 1 and int(lines[0].split()[1]) > 4 for lines in said), said
    index.verify()


SHARDED_READER = """
    import sys
    import numpy as np
    from late_interaction.errors import ColbertVespaError
    from late_interaction.plaid.shards import ShardedIndex, ShardSettings
    index = ShardedIndex.open(sys.argv[1], ShardSettings(timeout=300, start=300))
    Q = np.ones((1, index.dim), np.float32)
    print("ready", flush=True)
    sys.stdin.readline()
    seen = set()
    for turn in range(ROUNDS):
        if len(seen) > 4:
            break
        try:
            index.refresh()
            pinned = index.pinned()
            pinned.search(Q, 1)
            version = pinned.version
            for _ in range(2):  # in between others refresh and the writer commits
                found = pinned.search(Q, 100, exact=True)
                assert not found.missing, found.missing
                pair = {hit.passage.id: hit.passage.text for hit in found.hits if hit.passage.id.startswith("pair")}
                assert len(pair) == 8 and set(pair.values()) == {f"turn {version - 1}"}, (pair, version)
                index.refresh()
            seen.add(version)
        except (ColbertVespaError, AssertionError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
    print(f"seen {len(seen)}", flush=True)
    index.close()
"""


def test_sharded_readers_in_other_processes_keep_their_version_while_a_writer_commits(tmp_path):
    """Of all shards at once, in the workers too. Eight documents that change together lie in both shards."""
    sharding = Sharding(2)
    schema = MetadataSchema({})
    shards = {sharding.of_passage(passage(f"pair-{number}"), schema) for number in range(8)}
    assert shards == {0, 1}
    storage = Storage("float32")
    bundle = fake_bundle(tmp_path / "b")
    with ShardedIndex.create(tmp_path / "i", bundle=bundle, schema=schema, sharding=sharding, storage=storage) as index:

        def commit(writer, turn):
            for number in range(8):
                writer.put(passage(f"pair-{number}", text=f"turn {turn}"), VECTORS[(turn + number) % 64])
            writer.commit(compact=turn % 10 == 5)

        read_beside_a_writer(index, SHARDED_READER, 2, commit)


def test_verify_of_a_version_that_is_pruned_meanwhile_starts_over(index, monkeypatch):
    def commit():
        with index.writer() as writer:
            writer.put(passage("a"), VECTORS[index.version])
            writer.commit(compact=True)
            writer.prune()

    commit()
    checked = []

    def check(root, name, entry, *, checksum=False):
        checked.append(name)
        if len(checked) in (3, 15):  # in the midst of a version
            commit()
        return check_file(root, name, entry, checksum=checksum)

    reader = LocalIndex.open(index.path)
    monkeypatch.setattr("late_interaction.plaid.store.history.check_file", check)
    reader.verify()
    assert any(name.startswith("segments/3") for name in checked)
    assert reader.version == 1
    (index.path / "segments/3/texts.npy").unlink()
    with pytest.raises(LocalIndexError, match=r"texts\.npy is missing"):
        verify_versions(index.path)


def test_a_file_that_vanishes_while_it_is_checked_is_missing(index, monkeypatch):
    """A writer may prune it after its size was read."""
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.commit()

    def vanish(path):
        path.unlink()
        return sha256_file(path)

    monkeypatch.setattr("late_interaction.plaid.store.storage.sha256_file", vanish)
    with pytest.raises(LocalIndexError, match="is missing"):
        index.verify()


def test_a_version_comes_never_back_without_its_files(index, monkeypatch):
    """Its own file goes first, durably."""
    for number in range(3):
        with index.writer() as writer:
            writer.put(passage(f"d{number}"), VECTORS[number])
            writer.commit(compact=True)
    events = []
    monkeypatch.setattr("late_interaction.plaid.store.history.fsync_folder", lambda path: events.append(path.name))
    monkeypatch.setattr(
        "late_interaction.plaid.store.history._remove_others", lambda root, folder, needed: events.append(folder)
    )
    removed = remove_unused(index.path, known_versions(index.path), index.snapshot.version, 1)
    assert removed == [2]
    assert events == ["versions", "segments", "deletions", "codebooks"]


def test_a_refresh_is_one_assignment(index):
    """Two, and threads that refresh at once leave the snapshot of one version with the number of another."""

    class Watched(OpenedVersion):
        def __setattr__(self, name, value):
            assigned.append(name)
            super().__setattr__(name, value)

    assigned = []
    opened = Watched.newest(index.path)
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
    assigned.clear()
    assert opened.refresh()
    assert len(assigned) == 1
    assert not opened.refresh()


@pytest.mark.parametrize("strategy", ["bm25", "hybrid"])
def test_a_search_by_words_stays_in_its_version(index, monkeypatch, strategy):
    """Another thread's search may refresh the index while this one reads it."""
    with index.writer() as writer:
        for number in range(40):
            writer.put(passage(f"d{number}"), VECTORS[number])
        writer.commit()
    local = LocalSearch(index.path)
    asked = "search" if strategy == "hybrid" else "scores"  # what reads the index first
    ask = getattr(LocalIndex, asked)

    def meanwhile(self, *arguments, **named):
        found = ask(self, *arguments, **named)
        with LocalIndex.open(index.path).writer() as writer:
            for number in range(40):
                writer.delete_document(f"d{number}")
            writer.commit()
        local.index.refresh()
        return found

    monkeypatch.setattr(LocalIndex, asked, meanwhile)
    question = EncodedQuery(VECTORS[3], "text of d3")
    assert len(finished(local.search(question, SearchOptions(5, candidates=strategy), math.inf)).hits) == 5
    assert local.index.passages == 0


def test_resume_keeps_no_texts_in_memory(index):
    text = "x" * 20_000
    with index.writer() as writer:
        for number in range(1000):
            writer.put(dataclasses.replace(passage(f"d{number}"), text=text), VECTORS[0][:1])
        writer.flush()
    tracemalloc.start()
    try:
        with index.writer(resume=True) as writer:
            assert len(writer.pending) == 1000
            assert tracemalloc.get_traced_memory()[1] < 5_000_000  # of 20 MB
    finally:
        tracemalloc.stop()
