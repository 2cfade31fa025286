"""Rows in a file, and codebooks trained on them: the same as from memory, in little memory, and no file is left."""

import errno
import os
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction import codebook_training, row_sources
from late_interaction.codebook_training import train_codebook
from late_interaction.row_sources import RowFile, RowsAt


def unit_rows(count, dim, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def filled(file, rows, ids, size=700):
    for first in range(0, len(rows), size):
        file.append(rows[first : first + size].astype(np.float32), None if ids is None else ids[first : first + size])
    return file


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(row_sources, "BLOCK_ROWS", 3000)
    monkeypatch.setattr(codebook_training, "BLOCK_ROWS", 3000)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 20), st.integers(0, 2**32 - 1), st.booleans())
def test_a_file_returns_the_rows_that_an_array_would(sizes, block, seed, with_ids):
    random = np.random.default_rng(seed)
    parts = [random.standard_normal((size, 3)).astype(np.float32) for size in sizes]
    ids = [random.integers(-1, 4, size).astype(np.int32) if with_ids and random.random() < 0.8 else None for size in sizes]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(row_sources, "BLOCK_ROWS", block)
        with RowFile(Path(folder), 3) as file:
            for rows, own in zip(parts, ids, strict=True):
                file.append(rows, own)
            known = np.concatenate([np.zeros((0, 3)), *parts]).astype(np.float16)
            assert file.shape == known.shape
            assert len(file) == len(known)
            count = len(known)
            for places in (
                slice(None),
                slice(2, 5),
                random.permutation(count),
                random.integers(0, max(1, count), 7 * (count > 0)),
            ):
                assert np.array_equal(file[places], known[places])
            chosen = np.sort(random.permutation(count)[: count // 2])
            assert np.array_equal(RowsAt(file, chosen)[1:3], known[chosen][1:3])
            expected = np.concatenate([np.zeros(0), *(np.full(len(r), -1) if i is None else i for r, i in zip(parts, ids))])
            found = file.token_ids()
            assert np.array_equal(np.full(count, -1) if found is None else found, expected)
            assert os.listdir(folder) == []  # noqa: PTH208


def test_the_rows_of_an_id_are_read_by_one_call_for_each_block(tmp_path, monkeypatch, small_blocks):
    ids = np.random.default_rng(0).integers(0, 40, 9000).astype(np.int32)
    calls, read = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: calls.append(args[2]) or read(*args))
    with RowFile(tmp_path, 8) as file:
        filled(file, unit_rows(9000, 8), ids, size=1000)
        assert len(file[np.flatnonzero(ids == 7)]) > 100
    assert len(calls) == 3


@pytest.mark.parametrize("known", [1.0, 0.4, 0.0])
def test_a_codebook_is_the_same_from_a_file_and_from_memory(tmp_path, known):
    random, rows = np.random.default_rng(1), unit_rows(20_000, 16)
    ids = np.where(random.random(len(rows)) < known, random.integers(0, 60, len(rows)), -1).astype(np.int32)
    options = {"token_ids": ids if known else None, "centroids": 2_200, "iterations": 2}
    expected = train_codebook(rows, **options)
    with pytest.MonkeyPatch.context() as patch, RowFile(tmp_path, 16) as file:
        for module in (row_sources, codebook_training):
            patch.setattr(module, "BLOCK_ROWS", 3000)
        filled(file, rows, options["token_ids"])
        assert (file.token_ids() is None) == (not known)
        found = train_codebook(file, **options)
    assert found.groups is not None
    assert found.sha256 == expected.sha256


def test_training_holds_a_fraction_of_the_sample(tmp_path, monkeypatch, small_blocks):
    monkeypatch.setattr(codebook_training, "HELD_OUT", 500)
    rows = unit_rows(60_000, 128)
    ids = np.random.default_rng(1).integers(0, 60, len(rows)).astype(np.int32)
    train_codebook(rows[:18_000], token_ids=ids[:18_000], centroids=2_100, iterations=1)  # loads the compiled loops
    with RowFile(tmp_path, 128) as file:
        filled(file, rows, ids)
        tracemalloc.start()
        try:
            train_codebook(file, token_ids=ids, centroids=2_100, iterations=1)
            assert tracemalloc.get_traced_memory()[1] < rows.nbytes / 2
        finally:
            tracemalloc.stop()


def test_a_row_that_is_too_large_for_float16_is_refused(tmp_path, small_blocks):
    rows = np.ones((4000, 4), np.float32)
    rows[3500, 2] = 1e6
    with np.errstate(over="ignore"), RowFile(tmp_path, 4) as file:
        file.append(rows, None)
        with pytest.raises(ValueError, match="finite"):
            train_codebook(file)


def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path, monkeypatch, small_blocks):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b"))
    with pytest.raises(OSError, match=str(tmp_path)) as raised, RowFile(tmp_path, 4) as file:
        file.append(np.ones((4000, 4), np.float32), None)
    assert raised.value.errno == errno.ENOSPC


def test_a_file_that_was_cut_is_an_error(tmp_path):
    with RowFile(tmp_path, 4) as file:
        file.append(np.ones((10, 4), np.float32), None)
        assert len(file[:]) == 10
        [descriptor] = [number for number in os.listdir("/proc/self/fd") if str(tmp_path) in _target(number)]  # noqa: PTH208
        os.truncate(int(descriptor), 30)
        with pytest.raises(OSError, match=str(tmp_path)):
            file[:]


def _target(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return ""
