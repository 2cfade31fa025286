"""Vocabulary ids reach training and assignment row for row, or are not known there."""

import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from late_interaction.codebook import Codebook
from late_interaction.errors import UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import Storage, create_index, open_index
from late_interaction.plaid.shards import Sharding
from late_interaction.plaid.writing import build, pending, training

SCHEMA = MetadataSchema({"n": FieldType.LONG})
VECTORS = token_vectors(np.random.default_rng(0), 60)
ENDS = np.cumsum([len(rows) for rows in VECTORS])
IDS = np.split(1000 + np.random.default_rng(1).permutation(ENDS[-1]).astype(np.int32), ENDS[:-1])
ID_OF = {row.tobytes(): int(id_) for rows, ids in zip(VECTORS, IDS, strict=True) for row, id_ in zip(rows, ids, strict=True)}


def made(root, sharding=None, codec="residual"):
    bundle = fake_bundle(root / "b")
    return create_index(root / "i", bundle=bundle, schema=SCHEMA, storage=Storage(codec), sharding=sharding)


@pytest.fixture(params=[None, Sharding(3)], ids=["plain", "sharded"])
def index(tmp_path, request):
    return made(tmp_path, request.param)


class Recorded:
    """Rows that were trained on or assigned, with the ids that came with them; None for each where none came."""

    def __init__(self, monkeypatch):
        self.trained, self.grown, self.assigned = [], [], []
        assign, train, grow = Codebook.assign_near, training.train_codebook, training.grown

        def assign_near(book, vectors, token_ids=None):
            self.assigned += seen(vectors, token_ids)
            return assign(book, vectors, token_ids)

        def train_codebook(sample, *, token_ids=None, **options):
            self.trained += seen(sample, token_ids)
            return train(sample, token_ids=token_ids, **options)

        def grown(book, vectors, count, token_ids=None):
            self.grown += seen(vectors, token_ids)
            return grow(book, vectors, count, token_ids)

        monkeypatch.setattr(Codebook, "assign_near", assign_near)
        monkeypatch.setattr(training, "train_codebook", train_codebook)
        monkeypatch.setattr(training, "grown", grown)


@pytest.fixture
def recorded(monkeypatch):
    return Recorded(monkeypatch)


def seen(vectors, token_ids):
    ids = [None] * len(vectors) if token_ids is None else token_ids.tolist()
    return [(row.tobytes(), id_) for row, id_ in zip(vectors, ids, strict=True)]


def right(recorded_rows):
    return all(ID_OF[row] == id_ for row, id_ in recorded_rows)


def put(writer, numbers, ids=IDS):
    for number in numbers:
        writer.put(passage(f"d{number}", n=number), VECTORS[number], None if ids is None else ids[number])


@pytest.mark.parametrize("block", [1, 7, 1 << 14])
def test_ids_arrive_row_for_row(index, recorded, monkeypatch, block):
    monkeypatch.setattr(build, "BLOCK_ROWS", block)
    with index.writer() as writer:
        put(writer, range(60))
        writer.commit()
    assert {row for row, _ in recorded.assigned} == set(ID_OF)
    assert recorded.trained
    assert right(recorded.trained)
    assert right(recorded.assigned)


def test_ids_of_a_resumed_log_arrive_and_those_of_updated_passages(index, recorded):
    with index.writer() as writer:
        put(writer, range(30))
        writer.flush()
    with open_index(index.path).writer(resume=True) as writer:
        put(writer, range(30, 60))
        writer.update_metadata("d3", {"n": 7})
        writer.update_metadata("d33", {"n": 7})
        writer.commit()
    assert {row for row, _ in recorded.assigned} == set(ID_OF)
    assert right(recorded.trained)
    assert right(recorded.assigned)


def test_rows_whose_ids_are_not_known(index, recorded):
    """Without ids nothing comes; beside passages with ids, -1 does."""
    with index.writer() as writer:
        put(writer, range(20), ids=None)
        writer.commit()
    assert {id_ for _, id_ in recorded.trained + recorded.assigned} == {None}
    recorded.assigned.clear()
    with index.writer() as writer:
        put(writer, range(20, 60, 2), ids=None)
        writer.put(passage("some"), VECTORS[50], np.where(np.arange(len(VECTORS[50])) % 2, IDS[50], -1))
        put(writer, range(21, 60, 2))
        writer.commit()
    of_even = {row.tobytes() for number in range(20, 60, 2) for row in VECTORS[number]}
    last = dict(recorded.assigned)
    assert all(last[row] == id_ for row, id_ in ID_OF.items() if row in last and row not in of_even)
    assert {last[row] for row in of_even} <= {None, -1, *IDS[50].tolist()}
    assert {last[row.tobytes()] for number in range(20, 50, 2) for row in VECTORS[number]} <= {None, -1}


def test_a_codebook_grows_by_ids_and_vectors_that_are_stored_have_none(tmp_path, recorded, monkeypatch):
    monkeypatch.setattr(training, "DRIFTED", 0)
    monkeypatch.setattr(training, "PER_CENTROID", 2)
    index = made(tmp_path)
    for numbers in (range(30), range(30, 60)):
        with index.writer() as writer:
            put(writer, numbers)
            writer.commit()
    assert recorded.grown
    assert right(recorded.grown)
    assert right(recorded.trained)
    recorded.trained.clear()
    monkeypatch.setattr("late_interaction.plaid.writing.committing.COMPACTED", 1)
    with index.writer() as writer:
        writer.commit(compact=True)
    assert {id_ for _, id_ in recorded.trained} == {None}


@pytest.mark.parametrize("codec", ["float32", "binary"])
def test_other_codecs_assign_by_ids_too(tmp_path, recorded, codec):
    index = made(tmp_path, codec=codec)
    with index.writer() as writer:
        put(writer, range(60))
        writer.commit()
    assert right(recorded.trained)
    assert right(recorded.assigned)


def test_a_log_of_the_format_before_is_resumed_without_ids(tmp_path, recorded, monkeypatch):
    index = made(tmp_path)
    with monkeypatch.context() as before:
        before.setattr(pending, "_start_of", lambda base, magic=b"CVPEND02", real=pending._start_of: real(base, magic))
        with index.writer() as writer:
            put(writer, range(30), ids=None)
            writer.flush()
    assert (index.path / "pending/log").read_bytes().startswith(b"CVPEND02")
    with index.writer() as writer:
        assert writer.left_over
    with index.writer(resume=True) as writer:
        put(writer, range(30, 60))
        writer.flush()
    with index.writer(resume=True) as writer:
        assert writer.commit().passages == 60
    last = dict(recorded.assigned)
    assert all(last[row.tobytes()] == -1 for number in range(30) for row in VECTORS[number])
    assert all(last[row.tobytes()] == ID_OF[row.tobytes()] for number in range(30, 60) for row in VECTORS[number])


def test_ids_take_four_bytes_a_row_and_nothing_where_there_are_none(tmp_path):
    index = made(tmp_path)
    sizes = []
    for ids in (None, IDS):
        with index.writer() as writer:
            put(writer, range(60), ids)
            writer.flush()
            sizes.append((index.path / "pending/log").stat().st_size)
            writer.discard()
    assert sizes[1] - sizes[0] == 4 * len(ID_OF)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros(5, np.int32), r"passage 'd0#0': .*\(5,\).* 3 rows"),
        (np.zeros((len(VECTORS[0]), 1), np.int32), "token_ids have shape"),
        ([[1], [2, 3]], "token_ids must be whole numbers"),
        (np.zeros(len(VECTORS[0])), "whole numbers, not float64"),
        (np.full(len(VECTORS[0]), -2), "vocabulary ids"),
        (np.full(len(VECTORS[0]), 1 << 31), "vocabulary ids"),
    ],
    ids=["length", "shape", "ragged", "floats", "negative", "large"],
)
def test_ids_that_are_none_are_refused(index, wrong, message):
    with index.writer() as writer:
        with pytest.raises(UsageError, match=message):
            writer.put(passage("d0"), VECTORS[0], wrong)
        assert not writer.changed
