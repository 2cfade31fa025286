"""How a segment stores its token vectors.

Every vector also has a code, its centroid, with any codec: the first stages of a search work on codes alone.

residual   1, 2 or 4 bits per dimension around the centroid (late_interaction.codebook)
binary     one bit per dimension, cut at the bundle's thresholds or at 0 (late_interaction.thresholds)
float32    the vectors themselves

Scoring uses sixteen-bit copies, off by less than .001 for a query row of length one, and returns an error bound: hits are
scored again in float32. There may be int8 rows beside the codec's (`Refined`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Codes, Matrix, Places
from late_interaction.codebook import Codebook
from late_interaction.plaid.store import kernels
from late_interaction.plaid.store.int16_scoring import Query16, padded_width, sixteen_bits
from late_interaction.simd import SHARED
from late_interaction.thresholds import Thresholds

__all__ = ["CODECS", "Binary", "Codec", "CodecKind", "Float32", "Refined", "Residual"]

Payload = NDArray[Any]
LARGEST_NORM = 46_000  # its square fits an int32
LARGEST_CELL = 32_000


class Stored(Protocol):
    """What a segment has of its vectors: rows of passage p are `offsets[p]` to `offsets[p + 1]` of `codes` and `payload`."""

    offsets: Places
    codes: Codes
    payload: Payload


class Codec(Protocol):
    """How vectors become rows of `payload [n, width]`, of the type that `CodecKind.row` names."""

    def encode(self, vectors: Matrix, codes: Codes) -> Payload:
        """Return the payload of `vectors [n, d]` with `codes [n]`."""

    def decode(self, codes: Codes, payload: Payload) -> Matrix:
        """Return vectors `[n, d]`."""
        ...

    def score(self, query: Query16, passages: Places, stored: Stored) -> tuple[Matrix, Matrix]:
        """Return MaxSim of `passages [p]` of a segment, and its distance bound from that of the decoded vectors, both `[p]`.

        Passages without rows score -inf.
        """
        ...


@dataclass(frozen=True)
class CodecKind:
    """A kind of codec.

    Attributes:
        open: makes the codec from a codebook or from the bundle's thresholds.
        row: type and width of a payload row, by bits per dimension and dimensions.
    """

    open: Callable[[Codebook, Callable[[], Thresholds]], Codec]
    row: Callable[[int, int], tuple[str, int]]


@dataclass(frozen=True, eq=False)
class _Tables:
    """Turns a payload byte into sixteen-bit cells.

    `base [C, d] * times` of each code; `cells [bytes, 256, d per byte]` seen as int32; `unit` of a cell; `normalise`:
    whether rows are scaled to length one. shared: the buckets of all dimensions are equal up to a factor, so that `table
    [2, 16]`, low and high bytes, and `spread [d]` express what `cells` does. size, error: the greatest length of a row
    before it is scaled, and its greatest rounding error.
    """

    base: NDArray[Any]
    times: int
    cells: NDArray[np.int32]
    bits: int
    unit: float
    normalise: bool
    shared: bool
    table: NDArray[np.uint8]
    spread: NDArray[np.int16]
    size: float
    error: float

    @classmethod
    def of(cls, base: NDArray[Any], unit: float, weights: Matrix, bits: int, normalise: bool) -> _Tables:
        """Make the tables. base: float32, or int8 times a unit. weights: `[d, 2^bits]`."""
        dim = len(weights)
        per_byte = 8 // bits
        width = -(-dim // per_byte)
        largest = np.abs(weights).max(axis=1)
        longest, greatest, times = _extent(base, unit)
        norm, cell = longest + float(np.linalg.norm(largest)), greatest + float(largest.max())
        scale = min(1 << 14, LARGEST_NORM / max(norm, 1e-9), LARGEST_CELL / max(cell, 1e-9))
        if base.dtype == np.int8:  # whole steps, so that nothing is rounded
            times = max(1, int(scale * unit))
            scale = times / unit
        padded = np.zeros((width * per_byte, 1 << bits), np.float32)
        padded[:dim] = weights
        rounded = np.round(padded * scale).astype(np.int16).reshape(width, per_byte, 1 << bits)
        cells = np.empty((width, 256, per_byte), np.int16)
        for place in range(per_byte):
            buckets = (np.arange(256) >> (8 - bits * (place + 1))) & ((1 << bits) - 1)
            cells[:, :, place] = rounded[:, place][:, buckets]
        shared, table, spread = _shared_tables(weights, scale, bits)
        based = _padded(base, scale, padded_width(width * per_byte))
        read = _products(table, spread, bits) if shared else rounded.reshape(-1, 1 << bits)[:dim]
        error = 0.0
        if base.dtype != np.int8:
            error = float(np.linalg.norm(based[:, :dim] / np.float32(scale) - base, axis=1).max(initial=0))
        error += float(np.linalg.norm(np.abs(read / scale - weights).max(axis=1)))
        return cls(based, times, cells.view(np.int32), bits, 1 / scale, normalise, shared, table, spread, norm, error)

    def score(self, query: Query16, passages: Places, stored: Stored) -> tuple[Matrix, Matrix]:
        # a row that is normalised has its own unit
        unit = np.float32(query.unit if self.normalise else query.unit * self.unit)
        out: Matrix = np.empty(len(passages), np.float32)
        shortest: Matrix = np.full(len(passages), np.inf, np.float32)
        kernels.maxsim_cells(
            passages, stored.offsets, stored.codes, stored.payload, self.base, self.times, self.cells, self.bits,
            self.shared, self.table, self.spread, self.normalise,
            query.padded(self.base.shape[1]), unit, out, shortest,
        )  # fmt: skip
        if not self.normalise:
            return out, query.bound(np.full_like(out, self.size + self.error), np.full_like(out, self.error))
        # unit vectors of y and y' are 2 |y - y'| / (|y| + |y'|) apart at most (Dunkl and Williams 1964), and never more than 2
        apart = 2 * self.error / np.maximum(2 * shortest * np.float32(self.unit) - self.error, self.error)
        return out, query.bound(np.ones_like(out), np.minimum(2, apart).astype(np.float32))


def _extent(base: NDArray[Any], unit: float) -> tuple[float, float, int]:
    """Return the greatest length of a row, or a bound of it, and the greatest cell; times its unit."""
    if base.dtype == np.int8:  # unit rows, each cell off by at most half a unit
        return 1 + unit * np.sqrt(base.shape[1]) / 2, 127 * unit, 1
    return float(np.linalg.norm(base, axis=1).max(initial=0)), float(np.abs(base).max(initial=0)), 1


def _padded(base: NDArray[Any], scale: float, width: int) -> NDArray[Any]:
    """Return int8 rows as they are, others rounded to sixteen bits; cells past their own width are zero."""
    if base.dtype != np.int8:
        return sixteen_bits(base, scale, width)
    return base if base.shape[1] == width else np.pad(base, ((0, 0), (0, width - base.shape[1])))


def _products(table: NDArray[np.uint8], spread: NDArray[np.int16], bits: int) -> NDArray[np.int32]:
    """Return cells `[d, 2^bits]` as `expand_shared` computes them: word times spread, divided by 2^15 and rounded."""
    words = np.ascontiguousarray(table.T).view("<i2")[: 1 << bits, 0].astype(np.int32)
    cells: NDArray[np.int32] = (np.outer(spread.astype(np.int32), words) + (1 << 14)) >> 15
    return cells


def _shared_tables(weights: Matrix, scale: float, bits: int) -> tuple[bool, NDArray[np.uint8], NDArray[np.int16]]:
    """Tell whether `weights [d, 2^bits]` are one row of buckets times a factor per dimension; return the tables if so."""
    largest = np.abs(weights).max(axis=1)
    row = weights[largest.argmax()] / max(float(largest.max()), 1e-30)
    dim = len(weights)
    fits = SHARED and bits > 1 and (dim * bits) % (8 * 16) == 0 and np.allclose(largest[:, None] * row, weights, atol=1e-6)
    if not fits:
        return False, np.zeros((2, 16), np.uint8), np.zeros(1, np.int16)
    words = np.zeros(16, "<i2")
    words[: 1 << bits] = np.rint(row * 32_767)
    spread = np.rint(largest * (scale * 32_768 / 32_767)).astype(np.int16)
    return True, np.ascontiguousarray(words.view(np.uint8).reshape(16, 2).T), spread


class Residual:
    """The codec `residual`; see `Codec`."""

    def __init__(self, codebook: Codebook) -> None:
        self.codebook = codebook

    def encode(self, vectors: Matrix, codes: Codes) -> Payload:
        """Return the payload of `vectors [n, d]` with `codes [n]`."""
        return self.codebook.encode_residuals(vectors, codes)

    def decode(self, codes: Codes, payload: Payload) -> Matrix:
        """Return vectors `[n, d]`."""
        return self.codebook.decoded(codes, payload)

    @functools.cached_property
    def _tables(self) -> _Tables:
        return _Tables.of(self.codebook.cells, self.codebook.unit, self.codebook.weights, self.codebook.bits, True)

    def score(self, query: Query16, passages: Places, stored: Stored) -> tuple[Matrix, Matrix]:
        """Return MaxSim and its bound; see `Codec.score`."""
        return self._tables.score(query, passages, stored)


class Binary:
    """The codec `binary`; see `Codec`."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.thresholds = thresholds

    def encode(self, vectors: Matrix, codes: Codes) -> Payload:
        """Return the payload of `vectors [n, d]`."""
        return self.thresholds.encode(vectors)

    def decode(self, codes: Codes, payload: Payload) -> Matrix:
        """Return vectors `[n, d]`."""
        return self.thresholds.decode(np.ascontiguousarray(payload))

    @functools.cached_property
    def _tables(self) -> _Tables:
        cuts, spread = self.thresholds.cuts, self.thresholds.spread
        nowhere = np.zeros((1, len(cuts)), np.float32)
        return _Tables.of(nowhere, 1.0, np.stack([cuts - spread, cuts + spread], axis=1), 1, False)

    def score(self, query: Query16, passages: Places, stored: Stored) -> tuple[Matrix, Matrix]:
        """Return MaxSim and its bound; see `Codec.score`."""
        return self._tables.score(query, passages, stored)


class Float32:
    """The codec `float32`; see `Codec`."""

    def encode(self, vectors: Matrix, codes: Codes) -> Payload:
        """Return the payload of `vectors [n, d]`."""
        return vectors

    def decode(self, codes: Codes, payload: Payload) -> Matrix:
        """Return vectors `[n, d]`."""
        return np.array(payload, np.float32)

    def score(self, query: Query16, passages: Places, stored: Stored) -> tuple[Matrix, Matrix]:
        """Return MaxSim and its bound; see `Codec.score`."""
        dim = stored.payload.shape[1]
        out, longest = np.empty(len(passages), np.float32), np.zeros(len(passages), np.float32)
        rows = query.padded(padded_width(dim))
        kernels.maxsim_rows(passages, stored.offsets, stored.payload, rows, np.float32(query.unit), out, longest)
        apart = 0.51 * np.sqrt(dim) / LARGEST_CELL  # half a cell in every dimension, and some for float32
        return out, query.bound(longest, (longest * apart).astype(np.float32))


class Refined:
    """int8 rows beside the codec's, each a unit vector times 127 / its largest cell; a row of zeros stays one."""

    def decode(self, rows: NDArray[np.int8]) -> Matrix:
        """Return vectors `[n, d]`."""
        vectors = rows.astype(np.float32)
        unit: Matrix = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)
        return unit

    def score(self, query: Query16, passages: Places, offsets: Places, rows: NDArray[np.int8]) -> tuple[Matrix, Matrix]:
        """Return MaxSim and its bound like `Codec.score`; the rows are read as they are, so only the query is rounded."""
        out: Matrix = np.empty(len(passages), np.float32)
        cells = query.padded(padded_width(rows.shape[1]))
        kernels.maxsim_bytes(passages, offsets, rows, cells, np.float32(query.unit), out)
        return out, query.bound(np.ones_like(out), np.zeros_like(out))


CODECS: dict[str, CodecKind] = {
    "residual": CodecKind(lambda codebook, thresholds: Residual(codebook), lambda bits, dim: ("|u1", -(-dim * bits // 8))),
    "binary": CodecKind(lambda codebook, thresholds: Binary(thresholds()), lambda bits, dim: ("|u1", -(-dim // 8))),
    "float32": CodecKind(lambda codebook, thresholds: Float32(), lambda bits, dim: ("<f4", dim)),
}
