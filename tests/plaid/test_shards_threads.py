"""Shards are opened once for each of their versions, however many calls, threads and pinned readers ask."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
from plaid_tools import fake_bundle, finished, passage, token_vectors

from late_interaction.codebook_training import train_codebook
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid.shards import ShardedIndex, Sharding, reading
from late_interaction.plaid.store import segment as segment_module
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.store.storage import open_array
from query.local import LocalSearch

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 60)


@pytest.fixture
def folder(tmp_path):
    codebook = train_codebook(np.concatenate(VECTORS), bits=4, centroids=32)
    with ShardedIndex.create(
        tmp_path / "i", bundle=fake_bundle(tmp_path / "b", codebook=codebook), schema=SCHEMA, sharding=Sharding(3)
    ) as index:
        put(index, range(60))
    return tmp_path / "i"


def put(index, numbers):
    with index.writer() as writer:
        for number in numbers:
            writer.put(passage(f"d{number}", n=number), VECTORS[number])
        writer.commit()


@pytest.fixture
def opened_files(monkeypatch):
    """Names of the array files that segments open."""
    names: list[str] = []

    def opening(root, name, *rest, **options):
        names.append(name)
        return open_array(root, name, *rest, **options)

    monkeypatch.setattr(segment_module, "open_array", opening)
    return names


def test_calls_that_ask_no_worker_open_shards_once(folder, opened_files):
    search = LocalSearch(folder)
    later = time.monotonic() + 60
    calls = [
        lambda: finished(search.get(["d1", "d7"], None, later)),
        lambda: finished(search.get(["d1"], {"n": 1}, later)),
        lambda: finished(search.select({"n": {"$lt": 9}}, 20, later)),
        lambda: finished(search.vectors(["d1#0", "d9#0"], later)),
        lambda: list(search.index.pinned().iter_passages()),
        lambda: search.index.documents,
    ]
    assert set(calls[0]()) == {"d1", "d7"}
    first = len(opened_files)
    for call in calls:
        call()
    assert len(opened_files) == first
    with search.index.writer() as writer:
        writer.delete_document("d1")
        writer.commit()
    del opened_files[:]
    assert set(calls[0]()) == {"d7"}
    assert opened_files == []  # a deletion makes no new segment
    search.close()


def test_no_thread_misses_a_shard_that_another_is_opening(folder, monkeypatch):
    """Formerly it was taken out of the readers meanwhile."""
    opening, go_on = threading.Event(), threading.Event()

    def slow(root, version, before=None):
        opening.set()
        assert go_on.wait(60)
        return Snapshot(root, version, before)

    with ShardedIndex.open(folder) as index, ThreadPoolExecutor(2) as pool:
        assert len(index.readers()) == 3
        with ShardedIndex.open(folder) as beside:
            put(beside, range(60))
        assert index.refresh()
        monkeypatch.setattr(reading, "Snapshot", slow)
        first = pool.submit(index.readers)
        assert opening.wait(60)
        second = pool.submit(index.readers)
        wait([second], 0.2)
        go_on.set()
        assert list(first.result()) == list(second.result()) == [0, 1, 2]
        assert first.result() is second.result()
