import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from late_interaction.errors import ColbertVespaError
from late_interaction.vector_cache import VectorCache


def rows(n, dim=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def key(n):
    return bytes([n]) + bytes(15)


def test_vectors_come_back_after_reopening(tmp_path):
    cache = VectorCache(tmp_path, 4)
    for n in range(5):
        cache.put(key(n), rows(n, seed=n))
    cache.close()
    cache = VectorCache(tmp_path, 4)
    assert len(cache) == 5
    for n in range(5):
        np.testing.assert_array_equal(cache.get(key(n)), rows(n, seed=n))
    assert cache.get(key(9)) is None
    cache.close()


@given(cut_rows=st.integers(0, 200), cut_entries=st.integers(0, 170))
def test_a_torn_tail_is_cut_off(tmp_path_factory, cut_rows, cut_entries):
    folder = tmp_path_factory.mktemp("cache")
    cache = VectorCache(folder, 4)
    for n in range(4):
        cache.put(key(n), rows(3, seed=n))
    cache.close()
    for name, cut in (("vectors-2.f32", cut_rows), ("entries-2.bin", cut_entries)):
        path = folder / name
        path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - cut)])
    cache = VectorCache(folder, 4)
    there = len(cache)
    assert there == min((192 - min(cut_rows, 192)) // 48, (160 - min(cut_entries, 160)) // 40)
    for n in range(there):
        np.testing.assert_array_equal(cache.get(key(n)), rows(3, seed=n))
    cache.put(key(9), rows(2, seed=9))
    cache.close()
    cache = VectorCache(folder, 4)
    np.testing.assert_array_equal(cache.get(key(9)), rows(2, seed=9))
    cache.close()


@given(st.sampled_from(["vectors-2.f32", "entries-2.bin"]), st.integers(0, 191), st.integers(0, 7))
def test_what_a_flipped_bit_damages_is_a_miss_and_never_another_vector(tmp_path_factory, name, place, bit):
    """As zeros that a torn write leaves. Formerly wrong vectors came back."""
    folder = tmp_path_factory.mktemp("cache")
    cache = VectorCache(folder, 4)
    for n in range(4):
        cache.put(key(n), rows(3, seed=n))
    cache.close()
    data = bytearray((folder / name).read_bytes())
    place = place if name == "vectors-2.f32" else 40 + place % 160
    data[place] ^= 1 << bit
    (folder / name).write_bytes(data)
    for healed in (3, 4):
        cache = VectorCache(folder, 4)
        found = [cache.get(key(n)) for n in range(4)]
        assert sum(vectors is not None for vectors in found) >= healed
        for n, vectors in enumerate(found):
            if vectors is None:
                cache.put(key(n), rows(3, seed=n))
            np.testing.assert_array_equal(cache.get(key(n)), rows(3, seed=n))
        cache.close()


def test_rows_are_durable_before_the_records_that_name_them(tmp_path, monkeypatch):
    cache = VectorCache(tmp_path, 4)
    sizes = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: (sizes.append([path.stat().st_size for path in sorted(tmp_path.iterdir())]), real(file))
    )
    cache.put(key(1), rows(3))
    cache.flush()
    assert sizes == [[0, 48], [80, 48]]
    cache.close()
    assert len(sizes) == 2


def test_a_cache_of_another_width_or_a_foreign_file_is_left_alone(tmp_path):
    cache = VectorCache(tmp_path, 4)
    cache.put(key(1), rows(3))
    cache.close()
    with pytest.raises(ColbertVespaError, match="another model"):
        VectorCache(tmp_path, 8)
    (tmp_path / "entries-2.bin").write_bytes(b"somebody's own")
    with pytest.raises(ColbertVespaError, match="not a vector cache"):
        VectorCache(tmp_path, 4)
    assert (tmp_path / "entries-2.bin").read_bytes() == b"somebody's own"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ColbertVespaError, match="vector cache .*file"):
        VectorCache(tmp_path / "file", 4)


def test_a_second_opener_is_told(tmp_path):
    cache = VectorCache(tmp_path, 4)
    with pytest.raises(ColbertVespaError, match="in use"):
        VectorCache(tmp_path, 4)
    cache.close()
