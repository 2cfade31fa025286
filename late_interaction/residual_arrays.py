"""The loops of `residual_kernels` in numpy, slower, for an install without the extra `local`. Signatures are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import F32, U8, Codes

__all__ = ["decode_rows", "encode_residuals"]

BLOCK = 1 << 14  # vectors at a time


def encode_residuals(vectors: F32, codes: Codes, cells: NDArray[Any], unit: float, cutoffs: F32, bits: int, out: U8) -> None:
    """Write buckets of `vectors - cells[codes] * unit` into the zeroed `out [n, bytes]`, most significant bit first."""
    for start in range(0, len(vectors), BLOCK):
        part = slice(start, start + BLOCK)
        residuals = vectors[part] - cells[codes[part]].astype(np.float32) * unit
        buckets = np.zeros(residuals.shape, np.uint8)
        for cutoff in cutoffs.T:
            buckets += residuals >= cutoff
        for place, shift in enumerate(_shifts(bits)):
            own = buckets[:, place :: 8 // bits] << shift
            out[part, : own.shape[1]] |= own


def decode_rows(codes: Codes, residuals: U8, cells: NDArray[Any], unit: float, weights: F32, bits: int, out: F32) -> None:
    """Write unit rows into `out [n, d]`."""
    dims = np.arange(out.shape[1])
    for start in range(0, len(codes), BLOCK):
        part = slice(start, start + BLOCK)
        buckets = (residuals[part, :, None] >> _shifts(bits)) & ((1 << bits) - 1)
        rows = cells[codes[part]].astype(np.float32) * unit + weights[dims, buckets.reshape(len(buckets), -1)[:, : len(dims)]]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        out[part] = np.where(norms > 1e-12, rows / np.maximum(norms, 1e-12), 0)


def _shifts(bits: int) -> U8:
    """Return the shifts of the buckets in a byte."""
    return np.arange(8 - bits, -1, -bits, dtype=np.uint8)
