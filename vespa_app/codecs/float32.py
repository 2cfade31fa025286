"""Codec `float32`: the vectors as they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vespa_app.codecs.base import VECTORS, Floats, blocks, rows_of, stacked, token_matrix

__all__ = ["Float32"]


class Float32:
    name = "float32"

    def check_dim(self, dim: int) -> None:
        pass

    def field_type(self, dim: int) -> str:
        return f"tensor<float>(dt{{}}, x[{dim}])"

    def maxsim(self, dim: int) -> str:
        return f"sum(reduce(sum(query(qt) * attribute({VECTORS}), x), max, dt), qt)"

    def bytes_per_token(self, dim: int) -> int:
        return 4 * dim + 4

    def encode(self, vectors: Floats) -> dict[str, object]:
        return blocks(token_matrix(vectors).astype(">f4"))

    def decode(self, value: Mapping[str, object]) -> Floats:
        rows = rows_of(value)
        return stacked([_cells(row) for row in rows]).astype(np.float32)


def _cells(row: object) -> NDArray[np.generic]:
    return np.frombuffer(bytes.fromhex(row), ">f4") if isinstance(row, str) else np.asarray(row, np.float32)
