"""The sample of a large build is in a file without a name, which is gone when the training has ended, however it ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from late_interaction.errors import LocalIndexError
from late_interaction.files import files_below
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.writing import training
from late_interaction.row_sources import RowFile, tempfile

VECTORS = token_vectors(np.random.default_rng(0), 300)
KILLED = """
import os, signal, sys
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.writing import training
training.IN_FILE_ABOVE = 100
training.train_codebook = lambda sample, **options: os.kill(os.getpid(), signal.SIGKILL)
with LocalIndex.open(sys.argv[1]).writer(resume=True) as writer:
    writer.commit()
"""


@pytest.fixture
def index(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "IN_FILE_ABOVE", 100)
    return LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}))


def put(writer):
    for number, vectors in enumerate(VECTORS):
        writer.put(passage(f"d{number}"), vectors, np.arange(len(vectors), dtype=np.int32))


def unnamed_files(root):
    """Descriptors of this process for files in `root` that no name leads to."""
    found = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except OSError:
            continue
        if target.startswith(str(root)) and not Path(target).exists():
            found.append(target)
    return found


def test_no_name_leads_to_it_and_it_is_gone_after_the_build(index, monkeypatch):
    seen, train = [], training.train_codebook

    def training_while_looking(sample, **options):
        seen.append((type(sample), list(files_below(index.path)), len(unnamed_files(index.path))))
        return train(sample, **options)

    monkeypatch.setattr(training, "train_codebook", training_while_looking)
    with index.writer() as writer:
        put(writer)
        writer.flush()
        before = list(files_below(index.path))
        writer.commit()
    assert seen == [(RowFile, before, 1)]
    assert unnamed_files(index.path) == []
    index.verify()


def test_it_is_gone_after_a_failed_build(index, monkeypatch):
    with index.writer() as writer:
        put(writer)
        writer.flush()
        before = list(files_below(index.path))
        with monkeypatch.context() as patch:
            patch.setattr(training, "train_codebook", lambda sample, **options: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                writer.commit()
        assert unnamed_files(index.path) == []
        assert list(files_below(index.path)) == before
        assert writer.commit().passages == len(VECTORS)


def test_it_is_gone_after_a_killed_build(index):
    with index.writer() as writer:
        put(writer)
        writer.flush()
    before = sorted(files_below(index.path))
    killed = subprocess.run([sys.executable, "-c", KILLED, str(index.path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(files_below(index.path)) == before
    with index.writer(resume=True) as writer:
        assert writer.commit().passages == len(VECTORS)


def test_where_files_need_a_name_the_next_writer_removes_it(index, monkeypatch):
    names = []
    monkeypatch.setattr(os, "unlink", lambda path, **_: names.append(path))  # killed before it is removed
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    with RowFile(index.path / "codebooks", 4):
        pass
    monkeypatch.undo()
    assert [Path(name).exists() for name in names] == [True]
    with index.writer():
        assert not Path(names[0]).exists()


def test_a_full_disk_leaves_the_index_as_it_was(index, monkeypatch):
    with index.writer() as writer:
        put(writer)
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b"))
            with pytest.raises(LocalIndexError, match=r"version 0 is still current.*No space.*codebooks"):
                writer.commit()
        assert index.version == 0
        assert writer.commit().passages == len(VECTORS)
