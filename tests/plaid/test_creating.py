"""Two processes that make one index at once: one does, the other is told, and nothing of the first is lost."""

import functools
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from late_interaction.errors import LocalIndexError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, open_index
from late_interaction.plaid.shards import ShardedIndex, Sharding
from late_interaction.plaid.store.creating import new_index

VECTORS = token_vectors(np.random.default_rng(0), 5)

# says "staged" when its files are there and "made" when they are the index; both times it waits for a line first
PROGRAM = """
    import sys
    from late_interaction.bundle import Bundle
    from late_interaction.errors import ColbertVespaError
    from late_interaction.metadata import MetadataSchema
    from late_interaction.plaid import LocalIndex
    from late_interaction.plaid.shards import Sharding, ShardedIndex
    path, bundle, shards = sys.argv[1:]
    copy = Bundle.copy_to

    def copy_to(self, folder):
        copy(self, folder)
        print("staged", flush=True)
        sys.stdin.readline()

    Bundle.copy_to = copy_to
    form = {"bundle": Bundle.open(bundle, verify=False), "schema": MetadataSchema({})}
    try:
        if int(shards):
            ShardedIndex.create(path, sharding=Sharding(int(shards)), **form)
        else:
            LocalIndex.create(path, **form)
        print("made", flush=True)
    except ColbertVespaError as error:
        print(f"refused: {error}", flush=True)
"""


@pytest.fixture
def started(tmp_path):
    """Starts a process that makes the index `i`, and waits until it has staged its files."""
    bundle = fake_bundle(tmp_path / "b")
    running = []

    def start(shards=0):
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / "i"), str(bundle.path), str(shards)]
        process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, cwd=Path(__file__).parents[2])
        running.append(process)
        assert process.stdout.readline() == "staged\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def ended(process, lines=1):
    return process.communicate("go\n" * lines)[0].splitlines()[-1]


@pytest.mark.parametrize("shards", [0, 1])
def test_the_second_of_two_processes_is_refused_and_what_the_first_wrote_stays(tmp_path, started, shards):
    first, second = started(shards), started(shards)
    assert ended(first) == "made"
    with open_index(tmp_path / "i").writer() as writer:  # which removes what the other has staged
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
    assert ended(second).startswith(f"refused: {tmp_path / 'i'} exists")
    assert [p.id for p in open_index(tmp_path / "i").iter_passages()] == ["a#0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "i"]


def test_the_second_is_refused_where_its_files_are_still_there(tmp_path, started):
    first, second = started(), started()
    assert ended(first) == "made"
    made = LocalIndex.open(tmp_path / "i").current
    assert ended(second).startswith("refused: ")
    assert LocalIndex.open(tmp_path / "i").current == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "i"]


def test_of_two_processes_that_end_at_once_one_wins(tmp_path, started):
    running = [started(), started()]
    for process in running:
        process.stdin.write("go\n")
    for process in running:
        process.stdin.flush()
    said = sorted(process.communicate()[0].splitlines()[-1].split(":")[0] for process in running)
    assert said == ["made", "refused"]
    LocalIndex.open(tmp_path / "i", verify=True)


def test_an_empty_folder_is_taken_and_nothing_else_is(tmp_path):
    bundle, schema = fake_bundle(tmp_path / "b"), MetadataSchema({})
    (tmp_path / "empty").mkdir()
    assert LocalIndex.create(tmp_path / "empty", bundle=bundle, schema=schema).passages == 0
    (tmp_path / "file").write_text("mine")
    for create in (
        lambda path: LocalIndex.create(path, bundle=bundle, schema=schema),
        lambda path: ShardedIndex.create(path, bundle=bundle, schema=schema, sharding=Sharding(2)),
    ):
        for name in ("empty", "file"):
            with pytest.raises(LocalIndexError, match="not an empty folder"):
                create(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_refuses_is_one_line(tmp_path):
    with pytest.raises(LocalIndexError, match="cannot create .*i, nothing was written: full"), new_index(tmp_path / "i"):
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []


def test_none_is_made_inside_another_index_or_a_bundle(tmp_path):
    bundle = fake_bundle(tmp_path / "bundle")
    LocalIndex.create(tmp_path / "index", bundle=bundle, schema=MetadataSchema({}))
    ShardedIndex.create(tmp_path / "shards", bundle=bundle, schema=MetadataSchema({}), sharding=Sharding(2)).close()
    for place in ("index/new", "index/segments/a/new", "index/bundle/new", "shards/new", "shards/shard-0/new", "bundle/new"):
        for create in (LocalIndex.create, functools.partial(ShardedIndex.create, sharding=Sharding(2))):
            with pytest.raises(LocalIndexError, match=f"{place} lies inside (index|bundle) {tmp_path}"):
                create(tmp_path / place, bundle=bundle, schema=MetadataSchema({}))
        assert not (tmp_path / place).exists()
