"""The interface of a codec. Shapes: `D [t, d]` float32, L2-normalised rows.

Every `maxsim` expression must end in the engine's fused SumMaxDotProduct: exactly two float tensors of two dimensions, with
the query's and the document's token dimensions both mapped. tests/vespa/test_fused.py asks the engine.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I32, Matrix, Packed
from late_interaction.errors import SettingsError
from vespa_app.codecs.codebooks import NO_CODEBOOKS, Codebooks
from vespa_app.settings import AppSettings

__all__ = [
    "VECTORS",
    "Packed",
    "TensorCodec",
    "Values",
    "blocks",
    "byte_cells",
    "rows_of",
    "stacked",
    "token_matrix",
]

VECTORS = "vectors"  # the schema field
Values = dict[str, dict[str, object]]  # schema field -> the tensor value for document/v1


class TensorCodec(abc.ABC):
    """How token vectors are stored. The base class has no constants and no further fields; others override what differs.

    The score of `maxsim` is the exact MaxSim of the query with `decode(encode(D))`, so scores of all codecs can be compared
    with each other and with the local engine's.

    Attributes:
        name: its name.
        own_fields: names of its schema fields besides `vectors`; no metadata field may have them.
        needs_codebook: whether it needs the bundle's codebook.
        takes_thresholds: whether it uses the bundle's thresholds.
        embeddable: Vespa's embedder can make its vectors, also of chunks.
        distance: Vespa's metric of an HNSW graph over its rows: prenormalized-angular for floats, hamming for bits, "" for
            none.
        dims_per_cell: the number of dimensions must be a multiple of it.
    """

    name: str
    own_fields: tuple[str, ...] = ()
    needs_codebook: bool = False
    takes_thresholds: bool = False
    embeddable: bool = True
    distance: str = ""
    dims_per_cell: int = 1

    def codebook_faults(self, settings: AppSettings, books: Codebooks) -> Iterator[tuple[str, str]]:
        """Yield settings that name what the bundle lacks or has in another form, each with what is wrong."""
        yield from ()

    @abc.abstractmethod
    def field_type(self, settings: AppSettings) -> str:
        """Return the tensor type of the `vectors` field."""

    def more_fields(self, settings: AppSettings) -> Mapping[str, str]:
        """Return the tensor types of the fields besides `vectors`."""
        return {}

    def constants(self, settings: AppSettings) -> Mapping[str, str]:
        """Return the tensor types of the constants in the package."""
        return {}

    def constant_values(self, settings: AppSettings, books: Codebooks) -> Mapping[str, Matrix]:
        """Return the cells of each constant: `[x]`, or `[labels, x]` if its first dimension is mapped."""
        return {}

    def functions(self, settings: AppSettings) -> Mapping[str, str]:
        """Return rank functions that `maxsim` uses; each is evaluated once per document, or once per query."""
        return {}

    def maxsim(self, settings: AppSettings) -> str:
        """Return the ranking expression over query(qt) and the document's fields."""
        return f"sum({self.best(settings)}, qt)"

    @abc.abstractmethod
    def best(self, settings: AppSettings) -> str:
        """Return each query row's best match, tensor(qt{}); `maxsim` is its sum."""

    @abc.abstractmethod
    def bytes_per_token(self, dim: int, bits: int = 4) -> int:
        """Return the bytes of cells and labels of one token vector in Vespa's attributes. bits: of codec residual."""

    @abc.abstractmethod
    def encode(self, vectors: Matrix, books: Codebooks = NO_CODEBOOKS, codes: I32 | None = None) -> Values:
        """Return `[t, d]` as tensor values by field. codes: of the rows, if known."""

    @abc.abstractmethod
    def decode(self, values: Mapping[str, Mapping[str, object]], books: Codebooks = NO_CODEBOOKS) -> Matrix:
        """Return `[t, d]` from the tensor values of document/v1."""

    def packed(self, values: Mapping[str, Mapping[str, object]], books: Codebooks) -> Packed | None:
        """Return codes and residuals as `Codebook.encode` made them; None for a codec that stores none."""
        return None


def token_matrix(vectors: Matrix) -> Matrix:
    """Return a float32 matrix.

    Raises:
        ValueError: if `vectors` is not a finite `[t, d]`.
    """
    matrix = np.ascontiguousarray(vectors, np.float32)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"token vectors must be finite numbers of shape [t, d], got shape {list(matrix.shape)}")
    return matrix


def blocks(cells: NDArray[np.generic]) -> dict[str, object]:
    """Return rows of big-endian cells as `{"blocks": {"0": hex, ...}}`; labels are row numbers."""
    width = cells.dtype.itemsize * cells.shape[1] * 2
    text = cells.tobytes().hex()
    return {"blocks": {str(row): text[row * width : (row + 1) * width] for row in range(len(cells))}}


def rows_of(value: Mapping[str, object]) -> list[object]:
    """Return the rows of a mixed tensor in order of their labels, from document/v1's short or long form.

    Raises:
        SettingsError: if it has neither form.
    """
    rows = value.get("blocks", value)
    if isinstance(rows, list):
        rows = {str(next(iter(item["address"].values()))): item["values"] for item in rows}
    if not isinstance(rows, Mapping) or not all(str(label).isdigit() for label in rows):
        raise SettingsError(f"the value of field {VECTORS!r} is not a tensor of token vectors: {str(value)[:60]}")
    return [rows[label] for label in sorted(rows, key=int)]


def byte_cells(row: object) -> NDArray[np.uint8]:
    """Return one row of int8 cells, given as hex or numbers, as bytes in one dimension."""
    if isinstance(row, str):
        return np.frombuffer(bytes.fromhex(row), np.uint8)
    return np.asarray(row, np.float32).reshape(-1).astype(np.int8).view(np.uint8)


def stacked(rows: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Return rows of equal length as a matrix; `[0, 0]` for none."""
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
