"""Everything that is said to be durable has been synced, with the folders that hold its name."""

import os

import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors
from power_loss import Disk

from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex

VECTORS = token_vectors(np.random.default_rng(0), 40)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    return Disk(tmp_path / "disk", monkeypatch)


@pytest.fixture
def index(disk, tmp_path):
    return LocalIndex.create(disk.root / "i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}))


@pytest.fixture
def survives(disk, tmp_path):
    def opened(index):
        left = LocalIndex.open(disk.after_power_loss(tmp_path / "left") / "i")
        left.verify()
        assert left.version == index.version
        assert list(left.iter_passages()) == list(index.iter_passages())
        return left

    return opened


def test_a_new_index_survives_power_loss_with_its_bundle(index, survives):
    survives(index)


def test_a_new_index_survives_power_loss_with_the_folders_above_it(disk, tmp_path):
    made = LocalIndex.create(disk.root / "new/deeper/i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}))
    left = disk.after_power_loss(tmp_path / "left")
    assert LocalIndex.open(left / "new/deeper/i", verify=True).version == made.version


def test_commits_deletions_and_compaction_survive_power_loss(index, survives):
    with index.writer() as writer:
        for number in range(20):
            writer.put(passage(f"d{number}"), VECTORS[number])
        writer.commit()
        survives(index)
        writer.delete_document("d3")
        writer.commit("named")
        survives(index)
        writer.put(passage("d3"), VECTORS[30])
        writer.commit(compact=True)
        survives(index)
        writer.rollback("named")
        survives(index)


def test_a_flushed_log_survives_power_loss(index, survives):
    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.commit()
        writer.put(passage("b"), VECTORS[1])
        writer.flush()
        with survives(index).writer(resume=True) as resumed:
            assert set(resumed.pending) == {"b#0"}


def test_power_loss_at_any_moment_of_a_flush_leaves_a_whole_log(index, disk, tmp_path, monkeypatch):
    """What the log says of its durable bytes is never more than the disk has: that would be taken for damage."""
    left, flushed = [], [0]
    write, sync = os.pwrite, os.fsync

    def keeping(act):
        def call(*args):
            result = act(*args)
            left.append((disk.after_power_loss(tmp_path / f"left-{len(left)}"), flushed[-1]))
            return result

        return call

    with index.writer() as writer:
        writer.put(passage("a"), VECTORS[0])
        writer.flush()
        flushed.append(1)
        monkeypatch.setattr(os, "pwrite", keeping(write))
        monkeypatch.setattr(os, "fsync", keeping(sync))
        for number in range(2, 4):
            writer.put(passage(f"d{number}"), VECTORS[number])
            writer.flush()
            flushed.append(number)
        monkeypatch.setattr(os, "pwrite", write)
        monkeypatch.setattr(os, "fsync", sync)
    assert len(left) == 8  # records, sync, note, sync; twice
    for root, least in left:
        with LocalIndex.open(root / "i").writer(resume=True) as resumed:
            assert least <= len(resumed.pending) <= least + 1
