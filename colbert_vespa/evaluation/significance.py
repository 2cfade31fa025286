"""Test whether two rankings of the same queries differ significantly: paired t-test and randomisation test, by scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from late_interaction.extras import required

__all__ = ["PairedDifference", "paired"]

RESAMPLES = 9_999  # sign flips; all of them where there are fewer
SEED = 13


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of two systems over the same queries.

    Attributes:
        difference: Mean of ours less mean of theirs.
        t_test: Two-sided p-value of the paired t-test; None with a single query.
        randomisation: Two-sided p-value of the randomisation test; None with a single query.
        better: Number of queries on which ours is better.
        worse: Number of queries on which ours is worse.
    """

    difference: float
    t_test: float | None
    randomisation: float | None
    better: int
    worse: int


def paired(ours: Sequence[float], theirs: Sequence[float]) -> PairedDifference:
    """Compare a metric of the same queries in the same order: `ours [n]` and `theirs [n]`.

    Fisher's randomisation test exchanges the two values of a query (Smucker, Allan and Carterette 2007).
    """
    with required("local", "a test of significance"):
        from scipy.stats import permutation_test, ttest_rel

    differences = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    mean, better, worse = float(differences.mean()), int((differences > 0).sum()), int((differences < 0).sum())
    if len(differences) < 2:
        return PairedDifference(mean, None, None, better, worse)
    if not differences.any():
        return PairedDifference(0.0, 1.0, 1.0, 0, 0)
    spread = float(np.ptp(differences))
    t_test = 0.0 if spread == 0 else float(ttest_rel(ours, theirs).pvalue)
    flipped = permutation_test(
        (differences,), lambda values, axis: values.mean(axis=axis), permutation_type="samples", n_resamples=RESAMPLES,
        vectorized=True, batch=500, random_state=np.random.default_rng(SEED),
    )  # fmt: skip
    return PairedDifference(mean, t_test, float(flipped.pvalue), better, worse)
