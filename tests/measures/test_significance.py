"""Paired tests against values that can be computed by hand or by scipy's closed forms."""

import numpy as np
import pytest

from colbert_vespa.evaluation.significance import paired


def test_few_queries_are_counted_in_full():
    """Of the 2^4 sign flips of 1, 2, 3, 4 only two are as far from 0."""
    found = paired([1.0, 2.0, 3.0, 4.0], [0.0] * 4)
    assert found.randomisation == pytest.approx(2 / 16)
    assert (found.difference, found.better, found.worse) == (2.5, 4, 0)
    assert found.t_test == pytest.approx(0.0305, abs=1e-4)  # t = 2.5 / (1.291 / 2), three degrees of freedom


def test_chance_and_effect_are_told_apart():
    rng = np.random.default_rng(0)
    base = rng.random(200)
    same = paired(base + rng.normal(0, 0.1, 200), base)
    better = paired(base + rng.normal(0.05, 0.1, 200), base)
    assert min(same.t_test, same.randomisation) > 0.05
    assert max(better.t_test, better.randomisation) < 0.001
    assert same.t_test == pytest.approx(same.randomisation, abs=0.02)


def test_equal_values_do_not_differ():
    assert paired([0.5, 0.25], [0.5, 0.25]) == paired([1.0, 1.0], [1.0, 1.0])
    assert paired([0.5, 0.25], [0.5, 0.25]).randomisation == 1.0
    assert paired([1.0] * 3, [0.0] * 3).t_test == 0.0
    assert paired([1.0], [0.0]).t_test is None
