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


@given(cut_rows=st.integers(0, 200), cut_entries=st.integers(0, 60))
def test_a_torn_tail_is_cut_off(tmp_path_factory, cut_rows, cut_entries):
    folder = tmp_path_factory.mktemp("cache")
    cache = VectorCache(folder, 4)
    for n in range(4):
        cache.put(key(n), rows(3, seed=n))
    cache.close()
    for name, cut in (("vectors.f32", cut_rows), ("entries.bin", cut_entries)):
        path = folder / name
        path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - cut)])
    cache = VectorCache(folder, 4)
    there = len(cache)
    assert there == min((192 - min(cut_rows, 192)) // 48, (96 - cut_entries) // 24)
    for n in range(there):
        np.testing.assert_array_equal(cache.get(key(n)), rows(3, seed=n))
    cache.put(key(9), rows(2, seed=9))
    cache.close()
    cache = VectorCache(folder, 4)
    np.testing.assert_array_equal(cache.get(key(9)), rows(2, seed=9))
    cache.close()


def test_a_second_opener_is_told(tmp_path):
    cache = VectorCache(tmp_path, 4)
    with pytest.raises(ColbertVespaError, match="in use"):
        VectorCache(tmp_path, 4)
    cache.close()
