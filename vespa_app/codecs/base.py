"""What a codec is. Shapes: `D [t, d]` float32, L2-normalised rows.

Every `maxsim` expression must end in the engine's fused SumMaxDotProduct: exactly two float tensors of two dimensions, the
query's and the document's token dimensions both mapped. tests/vespa/test_fused.py asks the engine.
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
Values = dict[str, dict[str, object]]  # schema field -> the tensor value that document/v1 takes


class TensorCodec(abc.ABC):
    """How token vectors are stored, as a codec without constants and further fields has it; others say what differs.

    The score that `maxsim` gives is the exact MaxSim of the query with `decode(encode(D))`, so scores of all codecs are
    comparable with each other and with the local engine's.

    own_fields: names of its schema fields besides `vectors`; no metadata field may have them. embeddable: Vespa's embedder can
    make its vectors, of chunks too. distance: Vespa's metric of an HNSW graph over its rows, prenormalized-angular of floats,
    hamming of bits, "" for none. dims_per_cell: of vectors, whose number of dimensions must be a multiple of it.
    """

    name: str
    own_fields: tuple[str, ...] = ()
    needs_codebook: bool = False
    takes_thresholds: bool = False
    embeddable: bool = True
    distance: str = ""
    dims_per_cell: int = 1

    def codebook_faults(self, settings: AppSettings, books: Codebooks) -> Iterator[tuple[str, str]]:
        """Settings that name what the bundle lacks, or has in another form, each with what is wrong."""
        yield from ()

    @abc.abstractmethod
    def field_type(self, settings: AppSettings) -> str:
        """The tensor type of the `vectors` field."""

    def more_fields(self, settings: AppSettings) -> Mapping[str, str]:
        """Tensor types of the fields besides `vectors`."""
        return {}

    def constants(self, settings: AppSettings) -> Mapping[str, str]:
        """Tensor types of the constants that the package carries."""
        return {}

    def constant_values(self, settings: AppSettings, books: Codebooks) -> Mapping[str, Matrix]:
        """Cells of each constant: `[x]`, or `[labels, x]` where its first dimension is mapped."""
        return {}

    def functions(self, settings: AppSettings) -> Mapping[str, str]:
        """Rank functions that `maxsim` uses: each is evaluated once for a document, or once for a query."""
        return {}

    def maxsim(self, settings: AppSettings) -> str:
        """Ranking expression over query(qt) and the document's fields."""
        return f"sum({self.best(settings)}, qt)"

    @abc.abstractmethod
    def best(self, settings: AppSettings) -> str:
        """What each query row found at best, tensor(qt{}): `maxsim` is its sum."""

    @abc.abstractmethod
    def bytes_per_token(self, dim: int, bits: int = 4) -> int:
        """Bytes of cells and labels of one token vector in Vespa's attributes. bits: of the codec residual."""

    @abc.abstractmethod
    def encode(self, vectors: Matrix, books: Codebooks = NO_CODEBOOKS, codes: I32 | None = None) -> Values:
        """`[t, d]` as tensor values by field. codes: of the rows, where they are known."""

    @abc.abstractmethod
    def decode(self, values: Mapping[str, Mapping[str, object]], books: Codebooks = NO_CODEBOOKS) -> Matrix:
        """`[t, d]` of the tensor values that document/v1 gave back."""

    def packed(self, values: Mapping[str, Mapping[str, object]], books: Codebooks) -> Packed | None:
        """Codes and residuals as `Codebook.encode` gave them; None of a codec that stores none."""
        return None


def token_matrix(vectors: Matrix) -> Matrix:
    """Raises: ValueError unless `vectors` is a finite `[t, d]`."""
    matrix = np.ascontiguousarray(vectors, np.float32)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"token vectors must be finite numbers of shape [t, d], got shape {list(matrix.shape)}")
    return matrix


def blocks(cells: NDArray[np.generic]) -> dict[str, object]:
    """Rows of big-endian cells as `{"blocks": {"0": hex, ...}}`; labels are row numbers."""
    width = cells.dtype.itemsize * cells.shape[1] * 2
    text = cells.tobytes().hex()
    return {"blocks": {str(row): text[row * width : (row + 1) * width] for row in range(len(cells))}}


def rows_of(value: Mapping[str, object]) -> list[object]:
    """The rows of a mixed tensor in order of their labels, from document/v1's short or long form.

    Raises: SettingsError where it is neither.
    """
    rows = value.get("blocks", value)
    if isinstance(rows, list):
        rows = {str(next(iter(item["address"].values()))): item["values"] for item in rows}
    if not isinstance(rows, Mapping) or not all(str(label).isdigit() for label in rows):
        raise SettingsError(f"the value of field {VECTORS!r} is no tensor of token vectors: {str(value)[:60]}")
    return [rows[label] for label in sorted(rows, key=int)]


def byte_cells(row: object) -> NDArray[np.uint8]:
    """One row of int8 cells as document/v1 gives it, hex or numbers, as bytes in one dimension."""
    if isinstance(row, str):
        return np.frombuffer(bytes.fromhex(row), np.uint8)
    return np.asarray(row, np.float32).reshape(-1).astype(np.int8).view(np.uint8)


def stacked(rows: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Rows of one length as a matrix; `[0, 0]` for none."""
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
