"""Codec `residual`: the id of the nearest centroid and 1, 2 or 4 bits per dimension, decoded in the rank expression.

The decoded vectors are those of late_interaction.codebook:

    normalise(centroid + weights[j, bucket])

Bits are stored as planes (all top bits of a row, then all next ones), because unpack_bits makes floats of a plane. With u
and l the two bits of a bucket, its weight is the polynomial

    w0 + (w2 - w0) u + (w1 - w0) l + (w3 - w2 - w1 + w0) u l

and so on for four bits: exact, and made of joins that the engine vectorises; a table look-up for each dimension would be
interpreted. The coefficients are constants of the package, `residual_1` that of the lowest plane, `residual_3` that of the
lowest two, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I32, Matrix
from late_interaction.codebook import MOST_CONSTANTS, Codebook
from late_interaction.errors import SettingsError
from vespa_app.codecs.base import VECTORS, Packed, TensorCodec, Values, blocks, byte_cells, rows_of, stacked, token_matrix
from vespa_app.codecs.codebooks import NO_CODEBOOKS, Codebooks
from vespa_app.settings import AppSettings

__all__ = ["CODES", "ResidualTensors"]

CODES = "codes"
CENTROIDS = "centroid_vectors"
DECODED = "token_vectors"
NO_CODEBOOK = "residual needs a codebook; export the bundle with --sample"


class ResidualTensors(TensorCodec):
    """The codec `residual`."""

    name = "residual"
    own_fields = (CODES,)
    needs_codebook = True
    embeddable = False
    dims_per_cell = 8

    def codebook_faults(self, settings: AppSettings, books: Codebooks) -> Iterator[tuple[str, str]]:
        """Yield settings that the bundle's codebook does not fit."""
        book = books.residual
        if book is None:
            yield "codec", NO_CODEBOOK
        elif book.size > MOST_CONSTANTS:
            yield (
                "codec",
                (
                    f"residual takes at most {MOST_CONSTANTS:,} centroids, the bundle's codebook has {book.size:,} and no "
                    "smaller one is beside it: export the bundle again with --sample, or choose another codec"
                ),
            )
        elif settings.residual_bits != book.bits:
            yield "residual_bits", f"is {settings.residual_bits}, but the bundle's codebook has {book.bits}"

    def field_type(self, settings: AppSettings) -> str:
        """Return the tensor type of the `vectors` field."""
        planes = f"p[{settings.residual_bits}], " if settings.residual_bits > 1 else ""
        return f"tensor<int8>(dt{{}}, {planes}x[{settings.dim // 8}])"

    def more_fields(self, settings: AppSettings) -> Mapping[str, str]:
        """Return the tensor types of the fields besides `vectors`."""
        return {CODES: "tensor<int8>(c{}, dt{})"}

    def constants(self, settings: AppSettings) -> Mapping[str, str]:
        """Return the tensor types of the constants."""
        terms = dict.fromkeys(_terms(settings.residual_bits), f"tensor<float>(x[{settings.dim}])")
        return {CENTROIDS: f"tensor<float>(c{{}}, x[{settings.dim}])", **terms}

    def constant_values(self, settings: AppSettings, books: Codebooks) -> Mapping[str, Matrix]:
        """Return the cells of the constants; the weight of bucket 0, which every row has, is added to the centroids."""
        book = _book(books)
        terms = _coefficients(book.weights)
        centroids = (book.centroids.astype(np.float64) + terms[0]).astype(np.float32)
        return {CENTROIDS: centroids, **{name: terms[place] for name, place in _terms(book.bits).items()}}

    def functions(self, settings: AppSettings) -> Mapping[str, str]:
        """Return the rank functions."""
        bits = settings.residual_bits
        planes = {
            f"plane_{bit}": f"unpack_bits(attribute({VECTORS})" + (f"{{p:{bits - 1 - bit}}})" if bits > 1 else ")")
            for bit in range(bits)
        }
        raw = f"sum(attribute({CODES}) * constant({CENTROIDS}), c) + {_polynomial(bits - 1, 0)}"
        unit = "residual_raw * map(sum(residual_raw * residual_raw, x), f(a)(1 / sqrt(a)))"
        return {**planes, "residual_raw": raw, DECODED: unit}

    def best(self, settings: AppSettings) -> str:
        """Return each query row's best match."""
        return f"reduce(sum(query(qt) * {DECODED}, x), max, dt)"

    def bytes_per_token(self, dim: int, bits: int = 4) -> int:
        """Return the bytes of a token vector: a label and the planes; two labels and a cell of the centroid id."""
        return 4 + bits * dim // 8 + 9

    def encode(self, vectors: Matrix, books: Codebooks = NO_CODEBOOKS, codes: I32 | None = None) -> Values:
        """Return the tensor values."""
        book = _book(books)
        rows = token_matrix(vectors)
        codes = book.assign_near(rows) if codes is None else codes
        packed = book.encode_residuals(rows, codes)
        buckets = np.unpackbits(packed, axis=1, count=book.dim * book.bits).reshape(len(codes), book.dim, book.bits)
        planes = np.packbits(buckets.transpose(0, 2, 1), axis=2).reshape(len(codes), book.bits * book.dim // 8)
        cells = [{"address": {"c": str(code), "dt": str(row)}, "value": 1} for row, code in enumerate(codes.tolist())]
        return {VECTORS: blocks(planes), CODES: {"cells": cells}}

    def decode(self, values: Mapping[str, Mapping[str, object]], books: Codebooks = NO_CODEBOOKS) -> Matrix:
        """Return `[t, d]`."""
        return _book(books).decode(*self.packed(values, books))

    def packed(self, values: Mapping[str, Mapping[str, object]], books: Codebooks) -> Packed:
        """Return codes and residuals."""
        book = _book(books)
        planes = stacked([byte_cells(row) for row in rows_of(values[VECTORS])]).astype(np.uint8)
        if not planes.size:
            return np.zeros(0, np.int32), np.zeros((0, book.residual_bytes), np.uint8)
        bits = np.unpackbits(planes.reshape(len(planes), book.bits, -1), axis=2).transpose(0, 2, 1)
        codes = _codes(values.get(CODES, {}))
        if len(codes) != len(planes):
            raise SettingsError(f"the value of field {CODES!r} names {len(codes)} centroids, but there are {len(planes)} rows")
        return codes, np.packbits(bits.reshape(len(planes), -1), axis=1)


def _book(books: Codebooks) -> Codebook:
    if books.residual is None:
        raise SettingsError(f"setting codec: {NO_CODEBOOK}")
    return books.residual


def _terms(bits: int) -> dict[str, int]:
    """Yield the constant of each set of planes, as a bit mask; that of no plane is part of the centroids."""
    return {f"residual_{mask}": mask for mask in range(1, 1 << bits)}


def _coefficients(weights: Matrix) -> Matrix:
    """Convert `[d, B]` weights of buckets to `[B, d]` coefficients: row m belongs to the product of the planes in mask m."""
    terms = weights.T.astype(np.float64).copy()
    step = 1
    while step < len(terms):
        for mask in range(len(terms)):
            if mask & step:
                terms[mask] -= terms[mask ^ step]
        step *= 2
    return np.asarray(terms, np.float32)


def _polynomial(plane: int, above: int) -> str:
    """Return the terms with the planes in `above`, and any of `plane` and lower ones, in Horner's form."""
    if plane < 0:
        return f"constant(residual_{above})" if above else ""
    without, times = _polynomial(plane - 1, above), _polynomial(plane - 1, above | 1 << plane)
    product = f"plane_{plane} * {times}"
    return f"({without} + {product})" if without else f"({product})"


def _codes(value: Mapping[str, object]) -> NDArray[np.int32]:
    cells = value.get("cells")
    if not isinstance(cells, list):
        raise SettingsError(f"the value of field {CODES!r} is not a tensor of centroid ids: {str(value)[:60]}")
    by_row = {int(cell["address"]["dt"]): int(cell["address"]["c"]) for cell in cells if cell["value"]}
    return np.array([by_row[row] for row in sorted(by_row)], np.int32)
