"""Encoded documents kept in memory, without an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.maxsim import maxsim_many

__all__ = ["EncodedDocuments"]


class EncodedDocuments:
    """Encoded documents in memory. Nothing is padded, so a document's rows do not depend on the others."""

    def __init__(self, dim: int) -> None:
        self.texts: list[str] = []
        self.metadatas: list[Mapping[str, Any] | None] = []
        self._lengths: list[int] = []
        self._rows = np.zeros((0, dim), np.float32)

    def add(self, texts: Sequence[str], vectors: Sequence[Matrix], metadatas: Sequence[Mapping[str, Any] | None]) -> None:
        """Append texts with their vectors `[t, d]` and metadata."""
        self.texts += texts
        self.metadatas += metadatas
        self._lengths += [len(D) for D in vectors]
        self._rows = np.concatenate([self._rows, *vectors])

    def best(self, Q: Matrix, k: int) -> list[tuple[int, float]]:
        """Return places and MaxSim scores of the k best documents for `Q [q, d]`, or of all if there are fewer."""
        scores = maxsim_many(Q, self._rows, self._lengths)
        return [(place, float(scores[place])) for place in np.argsort(-scores, kind="stable")[:k].tolist()]
