"""Thresholds of the binary codec, for projections whose vectors are off centre, so that a bit cut at 0 says little.

    bit_j     = v_j > cuts_j
    decoded_j = cuts_j + spread_j (2 bit_j - 1)

With b the bits, the product with a query row q is that of plain sign bits, moved and scaled:

    q . decoded = 2 (q * spread) . b + q . (cuts - spread)

Without thresholds, cuts are 0 and spread is 1 / sqrt(d): `(2 q.b - sum(q)) / sqrt(d)`. Only the first term depends on the
document row, so the best row of a passage is found over the plain bits of a scaled query.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix
from late_interaction.arrays import load_arrays, save_arrays
from late_interaction.errors import BundleError
from late_interaction.maxsim import maxsim_many
from late_interaction.metrics import overlap_at_k

__all__ = ["Thresholds", "plain_thresholds", "recall_of", "train_thresholds"]

MAX_BYTES = 1 << 24
TESTED_PASSAGES, TESTED_QUERIES, QUERY_ROWS = 500, 32, 16
GAIN = 0.01  # least gain in recall; less is noise of the sample, and 0 stays the cut


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Where each dimension is cut, and the values of its two sides.

    Attributes:
        cuts: `[d]` float32.
        spread: `[d]` float32, above 0.
    """

    cuts: Matrix
    spread: Matrix

    def __post_init__(self) -> None:
        """Check the arrays.

        Raises:
            ValueError: if shape, type or values do not fit; the message names the array.
        """
        for name in ("cuts", "spread"):
            array = getattr(self, name)
            if array.dtype != np.float32 or not np.isfinite(array).all() or array.shape != (self.dim,):
                raise ValueError(f"{name} must be finite float32 of shape [d]")
        if not self.dim or not (self.spread > 0).all():
            raise ValueError("spread must be above 0")

    @property
    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.cuts) if self.cuts.ndim else 0

    @functools.cached_property
    def sha256(self) -> str:
        """Return the identity of the content."""
        digest = hashlib.sha256(f"binary {self.cuts.shape}".encode())
        for array in (self.cuts, self.spread):
            digest.update(np.ascontiguousarray(array, "<f4").tobytes())
        return digest.hexdigest()

    def encode(self, vectors: Matrix) -> NDArray[np.uint8]:
        """Return bits `[n, ceil(d / 8)]` of `vectors [n, d]`, most significant first."""
        return np.packbits(vectors > self.cuts, axis=1)

    def decode(self, packed: NDArray[np.uint8]) -> Matrix:
        """Return vectors `[n, d]` of bits `[n, ceil(d / 8)]`."""
        bits = np.unpackbits(packed, axis=1, count=self.dim).astype(np.float32)
        rows: Matrix = self.cuts + self.spread * (2 * bits - 1)
        return rows

    def save(self, path: str | Path) -> None:
        """Write the thresholds to an `.npz`, atomically."""
        save_arrays(path, cuts=self.cuts, spread=self.spread)

    @classmethod
    def load(cls, path: str | Path) -> Thresholds:
        """Read thresholds.

        Raises:
            BundleError: if the file is not valid; the message names it.
        """
        cuts, spread = load_arrays(path, "file of thresholds", ("cuts", "spread"), MAX_BYTES)
        try:
            return cls(cuts, spread)  # type: ignore[arg-type]  # the class checks them
        except ValueError as error:
            raise BundleError(f"{path} is not a file of thresholds, or is damaged: {error}") from None


def plain_thresholds(dim: int) -> Thresholds:
    """Return the thresholds of sign bits of unit rows: cut at 0."""
    return Thresholds(np.zeros(dim, np.float32), np.full(dim, 1 / np.sqrt(dim), np.float32))


def train_thresholds(sample: Sequence[Matrix], *, seed: int = 0) -> Thresholds | None:
    """Return the medians of each dimension over `sample`, a `[t, d]` per passage, or None if they do not help.

    They help if they find at least a hundredth more of the exact top 10 than a cut at 0 does. They do not for vectors that
    are centred, or trained to be binary. Judged on at most 500 passages and 32 queries, each of 16 seeded rows of a
    passage.
    """
    random = np.random.default_rng(seed)
    passages = [rows for rows in sample if len(rows)]
    passages = [passages[place] for place in random.permutation(len(passages))[:TESTED_PASSAGES]]
    if len(passages) < TESTED_QUERIES:
        return None
    vectors = np.concatenate(passages)
    cuts = np.median(vectors, axis=0).astype(np.float32)
    spread = np.maximum(np.abs(vectors - cuts).mean(axis=0, dtype=np.float64), 1e-6).astype(np.float32)
    trained = Thresholds(cuts, spread)
    gain = recall_of(trained, passages) - recall_of(plain_thresholds(len(cuts)), passages)
    return trained if gain >= GAIN else None


def recall_of(thresholds: Thresholds, passages: Sequence[Matrix]) -> float:
    """Return the share of the exact top 10 that MaxSim over the bits finds, for queries made of the passages' own rows."""
    lengths = [len(rows) for rows in passages]
    vectors = np.concatenate(passages)
    decoded = thresholds.decode(thresholds.encode(vectors))
    found = []
    for place in range(TESTED_QUERIES):
        rows = passages[place]
        Q = rows[np.sort(np.random.default_rng(place).permutation(len(rows))[:QUERY_ROWS])]
        exact, binary = (_top(maxsim_many(Q, matrix, lengths)) for matrix in (vectors, decoded))
        found.append(overlap_at_k(binary, exact, 10))
    return float(np.mean(found))


def _top(scores: Matrix) -> list[str]:
    return [str(place) for place in np.argsort(-scores, kind="stable")[:10].tolist()]
