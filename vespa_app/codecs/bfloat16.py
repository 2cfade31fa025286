"""Codec `bfloat16`: half the bytes of float32. Vespa truncates what it is fed, so the rounding is done here: to nearest,
ties to even."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vespa_app.codecs.base import VECTORS, Floats, blocks, rows_of, stacked, token_matrix

__all__ = ["BFloat16"]


class BFloat16:
    name = "bfloat16"

    def check_dim(self, dim: int) -> None:
        pass

    def field_type(self, dim: int) -> str:
        return f"tensor<bfloat16>(dt{{}}, x[{dim}])"

    def maxsim(self, dim: int) -> str:
        return f"sum(reduce(sum(query(qt) * cell_cast(attribute({VECTORS}), float), x), max, dt), qt)"

    def bytes_per_token(self, dim: int) -> int:
        return 2 * dim + 4

    def encode(self, vectors: Floats) -> dict[str, object]:
        return blocks(_upper_halves(token_matrix(vectors)).astype(">u2"))

    def decode(self, value: Mapping[str, object]) -> Floats:
        rows = rows_of(value)
        return stacked([_cells(row) for row in rows]).astype(np.float32)


def _cells(row: object) -> NDArray[np.generic]:
    if isinstance(row, str):
        return (np.frombuffer(bytes.fromhex(row), ">u2").astype(np.uint32) << 16).view(np.float32)
    return np.asarray(row, np.float32)


def _upper_halves(matrix: Floats) -> NDArray[np.uint16]:
    bits = matrix.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
