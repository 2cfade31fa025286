"""Encoding `lemur`: a passage is the weights of a linear model that predicts MaxSim from features of a query.

    f(x)       features of one query row: silu(layer_norm(x A + a) * gain + shift), [dim]
    query      mean over its rows of f(x), times T
    passage    w = S y - centre, with y_i the largest inner product of the fitted row X_i with the passage's rows, and S = T^-1
               times the least-squares solution (F^T F + ridge)^-1 F^T of the features F of all X

so that `query . passage` is roughly MaxSim for each query row, less its mean over passages. As LEMUR has it (Jaasaari,
Hyvonen, Roos 2026, arXiv 2601.21853): the network is trained once, on a sample; passages that come later only need y. Two
things are ours, which change no product but for what is the same for all passages. The centre leaves int8 cells more of their
range. T, the inverse root of F^T F, makes the distance of two passages that of their scores over the fitted rows, and an HNSW
graph of such vectors finds what one of plain weights misses (docs/performance).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix, Vector
from late_interaction.arrays import load_arrays, save_arrays
from late_interaction.errors import BundleError
from late_interaction.one_vector.base import FitReport, OneVector
from late_interaction.one_vector.network import Network, trained_network

__all__ = ["Lemur", "best_products"]

MAX_BYTES = 1 << 30
MAX_DIM = 4096
DEFAULT_DIM = 512
TARGETS = 1024  # passages whose MaxSim the network learns to predict
TRAINED_ROWS = 16_384
SOLVED_ROWS = 8  # fitted rows for each dimension
MIN_ROWS, MIN_PASSAGES = 2, 16  # rows for each dimension; passages in all
TOO_LONG = 1_000_000  # whose products overflow float32 when they are summed up
LEAST_STEP = 1e-30  # or a cell is beyond float32
RIDGE = 1e-2  # of the mean variance of a feature
LEAST = 1e-4  # of the greatest variance, that a direction of features counts as having
LARGEST = 0.9995  # share of cells that fit int8
BLOCK_BYTES = 1 << 25  # of inner products at a time
NAMES = ("weights", "bias", "gain", "shift", "turn", "rows", "solution", "centre", "unit")


@dataclass(frozen=True, eq=False)
class Lemur(OneVector):
    """The encoding `lemur`. All arrays are float32.

    Attributes:
        network: computes the features of rows.
        turn: T `[h, h]`.
        rows: X `[n, d]`.
        solution: S `[h, n]`.
        centre: `[h]`, subtracted from the vectors of passages.
        step: value of one step of an int8 cell.
    """

    name: ClassVar[str] = "lemur"
    about: ClassVar[str] = "weights that predict MaxSim from features of the query, fitted to a sample"
    normalized: ClassVar[bool] = False
    network: Network
    turn: Matrix
    rows: Matrix
    solution: Matrix
    centre: Vector
    step: float = 1.0

    def __post_init__(self) -> None:
        """Check the arrays; ValueError names one whose shape, type or values do not fit."""
        weights = self.network.weights
        if weights.ndim != 2 or not weights.size or weights.shape[1] > MAX_DIM:
            raise ValueError(f"weights have shape {weights.shape}, it must be [d, h] with h at most {MAX_DIM}")
        if self.rows.ndim != 2 or not len(self.rows):
            raise ValueError(f"rows have shape {self.rows.shape}, it must be [n, d]")
        width, number = (self.dim,), len(self.rows)
        shapes = {
            "weights": (weights, weights.shape), "bias": (self.network.bias, width), "gain": (self.network.gain, width),
            "shift": (self.network.shift, width), "turn": (self.turn, (self.dim, self.dim)),
            "rows": (self.rows, (number, self.rows_dim)),
            "solution": (self.solution, (self.dim, number)), "centre": (self.centre, width),
        }  # fmt: skip
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, not {shape}")
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite float32")
        if not 0 < self.step < math.inf:
            raise ValueError(f"unit must be above 0, got {self.step!r}")

    @classmethod
    def fit(
        cls, sample: Sequence[Matrix], *, dim: int = DEFAULT_DIM, seed: int = 0, progress: FitReport | None = None
    ) -> Lemur:
        """Fit the encoding as in `OneVector.fit`; the default of `dim` is 512."""
        passages = [np.asarray(rows, np.float32) for rows in sample if len(rows)]
        total = sum(len(rows) for rows in passages)
        if not 1 <= dim <= MAX_DIM:
            raise BundleError(f"encoding lemur has from 1 to {MAX_DIM} dimensions, got {dim}")
        if len(passages) < MIN_PASSAGES or total < MIN_ROWS * dim:
            raise BundleError(
                f"the sample has {len(passages):,} passages and {total:,} token vectors; encoding lemur of {dim:,} dimensions "
                f"needs at least {MIN_PASSAGES} passages and {MIN_ROWS * dim:,} token vectors"
            )
        random = np.random.default_rng(seed)
        joined = np.concatenate(passages)
        if not float(np.abs(joined).max()) < TOO_LONG:
            raise BundleError(f"the sample has token vectors that are not finite or have values of {TOO_LONG:,} or more")
        chosen = random.permutation(total)[: max(TRAINED_ROWS, SOLVED_ROWS * dim)]
        targets = [passages[place] for place in random.permutation(len(passages))[:TARGETS]]
        trained = joined[chosen[:TRAINED_ROWS]]
        network = trained_network(trained, best_products(targets, trained).T, dim, random, progress)
        rows = np.ascontiguousarray(joined[chosen[: SOLVED_ROWS * dim]])
        solution, turn = _solution(network.features(rows))
        uncentred = best_products(targets, rows) @ solution.T
        centre = uncentred.mean(axis=0)
        step = float(np.quantile(np.abs(uncentred - centre), LARGEST)) / 127
        if not LEAST_STEP < step < math.inf:
            raise BundleError(
                "the passages of the sample are all alike, or their token vectors are shorter than 1e-15, so encoding lemur "
                "cannot be fitted to them"
            )
        return cls(network, turn, rows, solution, centre, step)

    @property
    def rows_dim(self) -> int:
        """Return the dimensions of a token vector."""
        return int(self.network.weights.shape[0])

    @property
    def dim(self) -> int:
        """Return the dimensions of the vector."""
        return int(self.network.weights.shape[1])

    @property
    def unit(self) -> float:
        """Return the scale of the vectors."""
        return self.step

    def passages(self, rows: Sequence[Matrix]) -> Matrix:
        """Return one vector `[n, dim]` per passage from its rows."""
        found: Matrix = np.zeros((len(rows), self.dim), np.float32)
        there = [place for place, own in enumerate(rows) if len(own)]
        if there:
            found[there] = best_products([rows[place] for place in there], self.rows) @ self.solution.T - self.centre
        return found

    def query(self, rows: Matrix) -> Vector:
        """Return the vector `[dim]` of a query from its rows."""
        features: Vector = self.network.features(np.asarray(rows, np.float32)).sum(axis=0) / np.float32(max(1, len(rows)))
        return features @ self.turn

    @functools.cached_property
    def sha256(self) -> str:
        """Identity of the content, whatever file it is packed in."""
        digest = hashlib.sha256(f"lemur {self.network.weights.shape} {len(self.rows)} {self.step!r}".encode())
        for array in self._arrays:
            digest.update(np.ascontiguousarray(array, "<f4").data)
        return digest.hexdigest()

    @property
    def _arrays(self) -> tuple[Matrix, ...]:
        network = self.network
        return (
            network.weights, network.bias, network.gain, network.shift, self.turn, self.rows, self.solution, self.centre,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the fitted parameters."""
        save_arrays(path, **dict(zip(NAMES, (*self._arrays, np.float64(self.step)), strict=True)))

    @classmethod
    def load(cls, path: str | Path) -> Lemur:
        """Read a file that `save` has written.

        Raises:
            BundleError: if the file is missing or damaged; the message names it.
        """
        arrays: list[NDArray[Any]] = [*load_arrays(path, "file of encoding lemur", NAMES, MAX_BYTES)]
        try:
            if arrays[-1].shape != () or arrays[-1].dtype.kind != "f":
                raise ValueError("unit must be one number")
            turn, rows, solution, centre, step = arrays[4:]
            return cls(Network(*arrays[:4]), turn, rows, solution, centre, float(step))
        except ValueError as error:
            raise BundleError(f"{path} is damaged, or is not a file of encoding lemur: {error}") from None


def _solution(features: Matrix) -> tuple[Matrix, Matrix]:
    """Return S `[h, n]` and T `[h, h]` for features `[n, h]`."""
    wide = features.astype(np.float64)
    gram = wide.T @ wide
    values, vectors = np.linalg.eigh(gram / len(wide))
    roots = np.sqrt(np.maximum(values, LEAST * values.max()))
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram)
    solution = (vectors * roots) @ vectors.T @ np.linalg.solve(gram, wide.T)
    turn = (vectors / roots) @ vectors.T
    return np.asarray(solution, np.float32), np.asarray(turn, np.float32)


def best_products(passages: Sequence[Matrix], rows: Matrix) -> Matrix:
    """Return `[p, n]`: the largest inner product of each of `rows [n, d]` with the vectors `[t, d]` of each passage."""
    best: Matrix = np.empty((len(passages), len(rows)), np.float32)
    most = max(1, BLOCK_BYTES // (4 * len(rows)))
    first = 0
    while first < len(passages):
        last, total = first + 1, len(passages[first])
        while last < len(passages) and total + len(passages[last]) <= most:
            total += len(passages[last])
            last += 1
        block = passages[first:last]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in block])[:-1]])
        joined = np.asarray(np.concatenate(block), np.float32)
        np.maximum.reduceat(joined @ rows.T, starts, axis=0, out=best[first:last])
        first = last
    return best
