"""Codec `bfloat16`: half the bytes of float32.

Vespa truncates what it is fed, so rounding is done here: to nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I32, Matrix
from vespa_app.codecs.base import VECTORS, TensorCodec, Values, blocks, rows_of, stacked, token_matrix
from vespa_app.codecs.codebooks import NO_CODEBOOKS, Codebooks
from vespa_app.settings import AppSettings

__all__ = ["BFloat16Tensors", "upper_halves"]


class BFloat16Tensors(TensorCodec):
    """The codec `bfloat16`."""

    name = "bfloat16"
    distance = "prenormalized-angular"

    def field_type(self, settings: AppSettings) -> str:
        """Return the tensor type of the `vectors` field."""
        return f"tensor<bfloat16>(dt{{}}, x[{settings.dim}])"

    def best(self, settings: AppSettings) -> str:
        """Return each query row's best match."""
        return f"reduce(sum(query(qt) * cell_cast(attribute({VECTORS}), float), x), max, dt)"

    def bytes_per_token(self, dim: int, bits: int = 4) -> int:
        """Return the bytes of one token vector."""
        return 2 * dim + 4

    def encode(self, vectors: Matrix, books: Codebooks = NO_CODEBOOKS, codes: I32 | None = None) -> Values:
        """Return the tensor value."""
        return {VECTORS: blocks(upper_halves(token_matrix(vectors)).astype(">u2"))}

    def decode(self, values: Mapping[str, Mapping[str, object]], books: Codebooks = NO_CODEBOOKS) -> Matrix:
        """Return `[t, d]`."""
        return stacked([_cells(row) for row in rows_of(values[VECTORS])]).astype(np.float32)


def _cells(row: object) -> NDArray[np.generic]:
    if isinstance(row, str):
        return (np.frombuffer(bytes.fromhex(row), ">u2").astype(np.uint32) << 16).view(np.float32)
    return np.asarray(row, np.float32)


def upper_halves(matrix: Matrix) -> NDArray[np.uint16]:
    """Return the upper halves of float32, rounded."""
    bits = matrix.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
