"""Codec `binary`: one bit per dimension, 32 times smaller than float32.

A bit stands for +1 or -1, scaled by 1/sqrt(d) so that a decoded row has length 1; with the bundle's thresholds see
late_interaction.thresholds.

unpack_bits gives 0 and 1: with b a bit, `2 q.b - sum(q)` is the product with +1 and -1, and with thresholds it is `2 (q *
spread).b + q.(cuts - spread)`. The best row is that of the plain bits, so the engine takes the maximum over them, on its
fused path, and the correction is applied to the sum. What depends only on the query is a function of its own, which Vespa
evaluates once per query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from late_interaction.array_types import I32, Matrix
from late_interaction.thresholds import Thresholds, plain_thresholds
from vespa_app.codecs.base import VECTORS, TensorCodec, Values, blocks, byte_cells, rows_of, stacked, token_matrix
from vespa_app.codecs.codebooks import NO_CODEBOOKS, Codebooks
from vespa_app.settings import AppSettings

__all__ = ["BinaryTensors"]

_BITS = f"reduce(sum(binary_query * unpack_bits(attribute({VECTORS})), x), max, dt)"
SCALE, SHIFT = "binary_scale", "binary_shift"


class BinaryTensors(TensorCodec):
    """The codec `binary`."""

    name = "binary"
    takes_thresholds = True
    distance = "hamming"
    dims_per_cell = 8

    def codebook_faults(self, settings: AppSettings, books: Codebooks) -> Iterator[tuple[str, str]]:
        """Yield settings that the bundle's thresholds do not fit."""
        if settings.thresholds and books.thresholds is None:
            yield (
                "thresholds",
                "is true, but the bundle has no thresholds: either 0 did as well, or it was exported "
                "without --sample; set thresholds = false",
            )

    def field_type(self, settings: AppSettings) -> str:
        """Return the tensor type of the `vectors` field."""
        return f"tensor<int8>(dt{{}}, x[{settings.dim // 8}])"

    def constants(self, settings: AppSettings) -> Mapping[str, str]:
        """Return the tensor types of the constants."""
        return dict.fromkeys((SCALE, SHIFT), f"tensor<float>(x[{settings.dim}])") if settings.thresholds else {}

    def constant_values(self, settings: AppSettings, books: Codebooks) -> Mapping[str, Matrix]:
        """Return the cells of the constants."""
        if not settings.thresholds:
            return {}
        assert books.thresholds is not None
        cuts, spread = books.thresholds.cuts, books.thresholds.spread
        return {SCALE: 2 * spread, SHIFT: cuts - spread}

    def functions(self, settings: AppSettings) -> Mapping[str, str]:
        """Return the rank functions.

        binary_floor: what each query row gets from a document row without any bit, tensor(qt{}).
        """
        if settings.thresholds:
            return {"binary_query": f"query(qt) * constant({SCALE})", "binary_floor": f"sum(query(qt) * constant({SHIFT}), x)"}
        scale = 1 / math.sqrt(settings.dim)
        return {"binary_query": f"query(qt) * {2 * scale!r}", "binary_floor": f"sum(query(qt), x) * {-scale!r}"}

    def maxsim(self, settings: AppSettings) -> str:
        """Return the ranking expression."""
        return f"sum({_BITS}, qt) + sum(binary_floor, qt)"

    def best(self, settings: AppSettings) -> str:
        """Return each query row's best match."""
        return f"{_BITS} + binary_floor"

    def bytes_per_token(self, dim: int, bits: int = 4) -> int:
        """Return the bytes of one token vector."""
        return dim // 8 + 4

    def encode(self, vectors: Matrix, books: Codebooks = NO_CODEBOOKS, codes: I32 | None = None) -> Values:
        """Return the tensor value."""
        matrix = token_matrix(vectors)
        return {VECTORS: blocks(_thresholds(books, matrix.shape[1]).encode(matrix))}

    def decode(self, values: Mapping[str, Mapping[str, object]], books: Codebooks = NO_CODEBOOKS) -> Matrix:
        """Return `[t, d]`."""
        packed = stacked([byte_cells(row) for row in rows_of(values[VECTORS])]).astype(np.uint8)
        if not packed.size:
            return np.zeros((0, 0), np.float32)
        return _thresholds(books, 8 * packed.shape[1]).decode(packed)


def _thresholds(books: Codebooks, dim: int) -> Thresholds:
    return books.thresholds or plain_thresholds(dim)
