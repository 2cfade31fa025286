"""Fewer rows per document: similar token vectors replaced by their mean (Clavié et al. 2024, arXiv 2409.14683).

One function per method, one line per method in the table. Rows come out L2-normalised, as codecs and MaxSim expect.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix
from late_interaction.bundle import Pooling
from late_interaction.errors import UsageError
from late_interaction.extras import required

__all__ = ["METHODS", "check_pooling", "pool"]

MAX_FACTOR = 6


def check_pooling(pooling: Pooling) -> None:
    """Check the settings of pooling.

    Raises:
        UsageError: if a value is out of range; the message names it.
    """
    if not 1 <= pooling.factor <= MAX_FACTOR:
        raise UsageError(f"pooling factor must be 1 to {MAX_FACTOR}, got {pooling.factor}")
    if pooling.method not in METHODS:
        raise UsageError(f"pooling method {pooling.method!r} unknown; known: {', '.join(METHODS)}")
    if pooling.protected < 0:
        raise UsageError(f"protected rows must be 0 or more, got {pooling.protected}")


def pool(D: Matrix, pooling: Pooling) -> Matrix:
    """Pool unit rows `D [t, d]` to unit rows `[p + max((t - p) // factor, 1), d]`; the first p (`protected`) rows stay.

    Raises:
        UsageError: as in `check_pooling`.
    """
    check_pooling(pooling)
    rest = D[pooling.protected :]
    groups = max(len(rest) // pooling.factor, 1)
    if groups >= len(rest):
        return D
    labels = METHODS[pooling.method](rest, groups)
    means = np.zeros((labels.max() + 1, D.shape[1]), np.float32)
    np.add.at(means, labels, rest)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.concatenate([D[: pooling.protected], means])


def _hierarchical(D: Matrix, groups: int) -> NDArray[np.int64]:
    """Group rows by Ward's clustering of cosine distances, as PyLate and sentence-transformers do."""
    with required("local", "hierarchical pooling"):
        from scipy.cluster.hierarchy import fcluster, linkage

    upper = np.triu_indices(len(D), 1)
    distances = np.clip(1 - D @ D.T, 0, 2)[upper]
    labels = fcluster(linkage(distances, method="ward"), t=groups, criterion="maxclust")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _sequential(D: Matrix, groups: int) -> NDArray[np.int64]:
    """Group neighbours in the text; group sizes differ by at most one."""
    return np.arange(len(D), dtype=np.int64) * groups // len(D)


METHODS: dict[str, Callable[[Matrix, int], NDArray[np.int64]]] = {"hierarchical": _hierarchical, "sequential": _sequential}
