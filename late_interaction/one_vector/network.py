"""The network of encoding `lemur`: one hidden layer, trained by Adam; the gradients are written out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from late_interaction.array_types import Matrix, Vector
from late_interaction.one_vector.base import FitReport

__all__ = ["Network", "trained_network"]

EPSILON = 1e-5
EPOCHS, BATCH, RATE = 15, 256, 3e-3


@dataclass(frozen=True, eq=False)
class Network:
    """The hidden layer: `weights [d, h]`, `bias [h]`, `gain [h]`, `shift [h]`, float32."""

    weights: Matrix
    bias: Vector
    gain: Vector
    shift: Vector

    def features(self, rows: Matrix) -> Matrix:
        """Return the features `[n, h]` of `rows [n, d]`."""
        linear = standardised(rows @ self.weights + self.bias) * self.gain + self.shift
        features: Matrix = linear * (0.5 + 0.5 * np.tanh(0.5 * linear))
        return features


def trained_network(rows: Matrix, best: Matrix, dim: int, random: np.random.Generator, progress: FitReport | None) -> Network:
    """Train a network whose features predict `best [n, m]` of `rows [n, d]` linearly.

    Each row's mean is subtracted from `best` first, because it does not affect the order.
    """
    wanted = best - best.mean(axis=1, keepdims=True)
    wanted /= max(float(wanted.std()), EPSILON)
    weights = _Weights(rows.shape[1], dim, wanted.shape[1], random)
    batches = -(-len(rows) // BATCH)
    for epoch in range(EPOCHS):
        order = random.permutation(len(rows))
        for batch in range(batches):
            places = order[batch * BATCH : (batch + 1) * BATCH]
            done = (epoch * batches + batch) / (EPOCHS * batches)
            rate = RATE * min(1.0, 4 * done + 0.04) * (0.5 + 0.5 * math.cos(math.pi * done))  # up, then down
            weights.step(rows[places], wanted[places], rate)
        if progress:
            progress(epoch + 1, EPOCHS)
    return weights.network


class _Weights:
    """The weights of the network and of the linear layer behind it, with Adam's moments of each."""

    def __init__(self, dim: int, hidden: int, outputs: int, random: np.random.Generator) -> None:
        def uniform(fan_in: int, *shape: int) -> Matrix:
            values: Matrix = ((2 * random.random(shape, np.float32) - 1) / np.float32(math.sqrt(fan_in))).astype(np.float32)
            return values

        self._values = [
            uniform(dim, dim, hidden), uniform(dim, hidden), np.ones(hidden, np.float32), np.zeros(hidden, np.float32),
            uniform(hidden, hidden, outputs), np.zeros(outputs, np.float32),
        ]  # fmt: skip
        self._means = [np.zeros_like(value) for value in self._values]
        self._squares = [np.zeros_like(value) for value in self._values]
        self._steps = 0

    @property
    def network(self) -> Network:
        return Network(*self._values[:4])

    def step(self, rows: Matrix, wanted: Matrix, rate: float) -> None:
        """Take one step of Adam on the squared error."""
        self._steps += 1
        scale = rate * math.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        for place, slope in enumerate(self._slopes(rows, wanted)):
            self._means[place] += np.float32(0.1) * (slope - self._means[place])
            self._squares[place] += np.float32(0.001) * (slope * slope - self._squares[place])
            self._values[place] -= np.float32(scale) * self._means[place] / (np.sqrt(self._squares[place]) + np.float32(1e-8))

    def _slopes(self, rows: Matrix, wanted: Matrix) -> list[Matrix]:
        weights, bias, gain, shift, out, offset = self._values
        linear = rows @ weights + bias
        normal = standardised(linear)
        scaled = normal * gain + shift
        gate = 0.5 + 0.5 * np.tanh(0.5 * scaled)
        features = scaled * gate
        error = (features @ out + offset - wanted) * np.float32(2 / wanted.size)
        by_scaled = (error @ out.T) * (gate + features * (1 - gate))
        by_normal = by_scaled * gain
        along = (by_normal * normal).mean(axis=1, keepdims=True)
        spread = np.sqrt(linear.var(axis=1, keepdims=True) + np.float32(EPSILON))
        by_linear = (by_normal - by_normal.mean(axis=1, keepdims=True) - normal * along) / spread
        slopes = (
            rows.T @ by_linear, by_linear.sum(axis=0), (by_scaled * normal).sum(axis=0), by_scaled.sum(axis=0),
            features.T @ error, error.sum(axis=0),
        )  # fmt: skip
        return [np.asarray(slope, np.float32) for slope in slopes]


def standardised(values: Matrix) -> Matrix:
    """Return each row scaled to mean 0 and variance 1."""
    centred = values - values.mean(axis=1, keepdims=True)
    out: Matrix = centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(EPSILON))
    return out
