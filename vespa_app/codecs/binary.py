"""Codec `binary`: one sign bit per dimension, 32 times smaller than float32. A bit stands for +1 or -1, scaled by 1/sqrt(d)
so that a decoded row has length 1.

unpack_bits gives 0 and 1: with b a bit, `2 q.b - sum(q)` is the product with +1 and -1. The best row is the same, so the
engine takes the maximum over the plain bits, on its fused path, and the correction is applied to the sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import SettingsError
from vespa_app.codecs.base import VECTORS, Floats, blocks, rows_of, stacked, token_matrix

__all__ = ["Binary"]


class Binary:
    name = "binary"

    def check_dim(self, dim: int) -> None:
        if dim % 8:
            raise SettingsError(f"setting codec: binary packs 8 dimensions into a byte, and the vectors have {dim}")

    def field_type(self, dim: int) -> str:
        return f"tensor<int8>(dt{{}}, x[{dim // 8}])"

    def maxsim(self, dim: int) -> str:
        fused = f"sum(reduce(sum(query(qt) * unpack_bits(attribute({VECTORS})), x), max, dt), qt)"
        return f"(2 * {fused} - sum(query(qt))) * {1 / math.sqrt(dim)!r}"

    def bytes_per_token(self, dim: int) -> int:
        return dim // 8 + 4

    def encode(self, vectors: Floats) -> dict[str, object]:
        return blocks(np.packbits(token_matrix(vectors) > 0, axis=1))

    def decode(self, value: Mapping[str, object]) -> Floats:
        rows = rows_of(value)
        packed = stacked([_cells(row) for row in rows]).astype(np.uint8)
        bits = np.unpackbits(packed, axis=1).astype(np.float32)
        signs: Floats = (2 * bits - 1) / np.float32(math.sqrt(bits.shape[1] or 1))
        return signs


def _cells(row: object) -> NDArray[np.generic]:
    if isinstance(row, str):
        return np.frombuffer(bytes.fromhex(row), np.uint8)
    return np.asarray(row, np.float32).astype(np.int8).view(np.uint8)
