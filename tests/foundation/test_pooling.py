"""Token pooling: counts, unit rows, protected rows, and sentence-transformers' own result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.bundle import Pooling
from late_interaction.errors import UsageError
from late_interaction.pooling import METHODS, pool


def unit_rows(seed, rows, dim=8):
    D = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return D / np.linalg.norm(D, axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 40), st.integers(1, 6), st.sampled_from(sorted(METHODS)), st.integers(0, 5))
def test_counts_and_unit_rows(seed, rows, factor, method, protected):
    D = unit_rows(seed, rows)
    pooled = pool(D, Pooling(factor, method, protected))
    kept = min(protected, rows)
    rest = rows - kept
    assert kept + (rest > 0) <= max(len(pooled), kept + (rest > 0)) <= kept + max(rest // factor, 1)
    np.testing.assert_array_equal(pooled[:kept], D[:kept])
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
    if factor == 1:
        np.testing.assert_array_equal(pooled, D)


def test_equal_rows_become_one():
    D = np.repeat(unit_rows(0, 3), 4, axis=0)
    pooled = pool(D, Pooling(4, "hierarchical", 0))
    assert len(pooled) == 3
    assert np.allclose(np.sort(pooled @ D[::4].T, axis=1)[:, -1], 1, atol=1e-6)


def test_sequential_pooling_takes_neighbours():
    D = unit_rows(1, 6)
    pooled = pool(D, Pooling(2, "sequential", 0))
    want = D.reshape(3, 2, -1).mean(axis=1)
    np.testing.assert_allclose(pooled, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_hierarchical_pooling_is_that_of_sentence_transformers(factor):
    module = pytest.importorskip("sentence_transformers.multi_vector_encoder.modules.token_pooling")
    torch = pytest.importorskip("torch")
    for seed in range(5):
        D = unit_rows(seed, 37, 16)
        theirs = module.HierarchicalTokenPooling(factor, num_protected_tokens=2).pool_one(torch.from_numpy(D)).numpy()
        ours = pool(D, Pooling(factor, "hierarchical", 2))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_factor_out_of_range_is_an_error():
    with pytest.raises(UsageError, match="1 to 6"):
        pool(unit_rows(0, 3), Pooling(7))
