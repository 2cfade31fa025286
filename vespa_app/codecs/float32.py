"""Codec `float32`: the vectors unchanged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I32, Matrix
from vespa_app.codecs.base import VECTORS, TensorCodec, Values, blocks, rows_of, stacked, token_matrix
from vespa_app.codecs.codebooks import NO_CODEBOOKS, Codebooks
from vespa_app.settings import AppSettings

__all__ = ["Float32Tensors"]


class Float32Tensors(TensorCodec):
    """The codec `float32`."""

    name = "float32"
    distance = "prenormalized-angular"

    def field_type(self, settings: AppSettings) -> str:
        """Return the tensor type of the `vectors` field."""
        return f"tensor<float>(dt{{}}, x[{settings.dim}])"

    def best(self, settings: AppSettings) -> str:
        """Return each query row's best match."""
        return f"reduce(sum(query(qt) * attribute({VECTORS}), x), max, dt)"

    def bytes_per_token(self, dim: int, bits: int = 4) -> int:
        """Return the bytes of one token vector."""
        return 4 * dim + 4

    def encode(self, vectors: Matrix, books: Codebooks = NO_CODEBOOKS, codes: I32 | None = None) -> Values:
        """Return the tensor value."""
        return {VECTORS: blocks(token_matrix(vectors).astype(">f4"))}

    def decode(self, values: Mapping[str, Mapping[str, object]], books: Codebooks = NO_CODEBOOKS) -> Matrix:
        """Return `[t, d]`."""
        return stacked([_cells(row) for row in rows_of(values[VECTORS])]).astype(np.float32)


def _cells(row: object) -> NDArray[np.generic]:
    return np.frombuffer(bytes.fromhex(row), ">f4") if isinstance(row, str) else np.asarray(row, np.float32)
