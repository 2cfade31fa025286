"""Compiled loops of the residual codec: buckets of a vector's dimensions, and unit rows from them.

Shapes: n token vectors of d dimensions, C centroids, which are `cells [C, d] * unit`. Codes from a file are checked against
the centroids, so that a damaged file cannot read foreign memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import F32, I32, U8, Codes
from late_interaction.compiling import FAST, compiler

__all__ = ["decode_rows", "encode_residuals"]

_jit = compiler(__file__)
_fast = compiler(__file__, fastmath=FAST)


@_jit
def encode_residuals(vectors: F32, codes: I32, cells: NDArray[Any], unit: float, cutoffs: F32, bits: int, out: U8) -> None:
    """Write buckets of `vectors - cells[codes] * unit` into the zeroed `out [n, bytes]`, most significant bit first."""
    per_byte = 8 // bits
    count = cutoffs.shape[1]
    for i in range(vectors.shape[0]):
        code = codes[i]
        for j in range(vectors.shape[1]):
            residual = vectors[i, j] - np.float32(cells[code, j]) * unit
            bucket = 0
            for b in range(count):
                bucket += residual >= cutoffs[j, b]
            out[i, j // per_byte] |= np.uint8(bucket << (8 - bits * (1 + j % per_byte)))


@_fast
def _decode_row(row: NDArray[Any], unit: float, residual: U8, weights: F32, bits: int, out: F32) -> None:
    dim = out.shape[0]
    if bits == 4 and dim % 2 == 0:
        for b in range(dim // 2):
            byte = residual[b]
            out[2 * b] = np.float32(row[2 * b]) * unit + weights[2 * b, byte >> 4]
            out[2 * b + 1] = np.float32(row[2 * b + 1]) * unit + weights[2 * b + 1, byte & 15]
    elif bits == 2 and dim % 4 == 0:
        for b in range(dim // 4):
            byte = residual[b]
            out[4 * b] = np.float32(row[4 * b]) * unit + weights[4 * b, byte >> 6]
            out[4 * b + 1] = np.float32(row[4 * b + 1]) * unit + weights[4 * b + 1, (byte >> 4) & 3]
            out[4 * b + 2] = np.float32(row[4 * b + 2]) * unit + weights[4 * b + 2, (byte >> 2) & 3]
            out[4 * b + 3] = np.float32(row[4 * b + 3]) * unit + weights[4 * b + 3, byte & 3]
    else:
        per_byte = 8 // bits
        mask = (1 << bits) - 1
        for j in range(dim):
            bucket = (residual[j // per_byte] >> (8 - bits * (1 + j % per_byte))) & mask
            out[j] = np.float32(row[j]) * unit + weights[j, bucket]
    square = np.float32(0)
    for j in range(dim):
        square += out[j] * out[j]
    scale = np.float32(1) / np.sqrt(square) if square > 1e-24 else np.float32(0)
    for j in range(dim):
        out[j] *= scale


@_jit
def decode_rows(codes: Codes, residuals: U8, cells: NDArray[Any], unit: float, weights: F32, bits: int, out: F32) -> None:
    """Write unit rows into `out [n, d]`."""
    for i in range(codes.shape[0]):
        code = max(0, min(np.int64(codes[i]), cells.shape[0] - 1))
        _decode_row(cells[code], unit, residuals[i], weights, bits, out[i])
