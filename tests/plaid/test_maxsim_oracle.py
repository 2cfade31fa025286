"""The oracle itself, against a loop in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plaid_tools import unit

import late_interaction.maxsim as module
from late_interaction.maxsim import maxsim, maxsim_many, similarities


def by_hand(Q, D):
    return sum(max(float(np.dot(q, d)) for d in D) for q in Q)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), max_size=12), st.integers(0, 5), st.sampled_from([1, 3, 1 << 22]))
def test_many_equals_one_by_one_in_blocks_of_any_size(seed, lengths, rows, cells):
    random = np.random.default_rng(seed)
    Q = unit(random.standard_normal((rows, 8)))
    D = unit(random.standard_normal((sum(lengths), 8)))
    kept, module.BLOCK_CELLS = module.BLOCK_CELLS, cells
    try:
        scores = maxsim_many(Q, D, lengths)
    finally:
        module.BLOCK_CELLS = kept
    parts = np.split(D, np.cumsum(lengths)[:-1]) if lengths else []
    assert scores.shape == (len(lengths),)
    for score, part in zip(scores.tolist(), parts, strict=True):
        if len(part):
            assert score == pytest.approx(by_hand(Q, part), abs=1e-5)
            assert score == pytest.approx(maxsim(Q, part), abs=1e-5)
        else:
            assert score == -math.inf


def test_nothing_scores_minus_infinity_and_no_query_scores_zero():
    Q, D = np.ones((2, 4), np.float32), np.ones((3, 4), np.float32)
    assert maxsim(Q, D[:0]) == -math.inf
    assert maxsim(Q[:0], D) == 0
    assert maxsim_many(Q, D[:0], [0, 0]).tolist() == [-math.inf] * 2
    assert similarities(Q, D).shape == (2, 3)


@pytest.mark.parametrize("lengths", [[1], [4], [-1, 4], [[3]]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths"):
        maxsim_many(np.ones((1, 4), np.float32), np.ones((3, 4), np.float32), lengths)


def test_widths_that_differ_are_refused():
    with pytest.raises(ValueError, match="same width"):
        maxsim(np.ones((1, 4), np.float32), np.ones((3, 5), np.float32))
