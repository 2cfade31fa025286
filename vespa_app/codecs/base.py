"""What a codec is. Shapes: `D [t, d]` float32, L2-normalised rows.

Every `maxsim` expression must end in the engine's fused SumMaxDotProduct: exactly two float tensors of two dimensions, the
query's and the document's token dimensions both mapped. tests/vespa/test_fused.py asks the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import SettingsError

__all__ = ["VECTORS", "Codec", "Floats", "blocks", "rows_of", "stacked", "token_matrix"]

VECTORS = "vectors"  # the schema field
Floats = NDArray[np.float32]


class Codec(Protocol):
    """The score that `maxsim` gives is the exact MaxSim of the query with `decode(encode(D))`, so scores of all codecs are
    comparable with each other and with the local engine's."""

    @property
    def name(self) -> str: ...

    def check_dim(self, dim: int) -> None:
        """Raises: SettingsError where this codec cannot store vectors of `dim`."""
        ...

    def field_type(self, dim: int) -> str:
        """The tensor type of the `vectors` field."""
        ...

    def maxsim(self, dim: int) -> str:
        """Ranking expression over query(qt) and attribute(vectors)."""
        ...

    def bytes_per_token(self, dim: int) -> int:
        """Bytes of cells and label of one token vector in Vespa's attribute."""
        ...

    def encode(self, vectors: Floats) -> dict[str, object]:
        """`[t, d]` as the tensor value that document/v1 takes."""
        ...

    def decode(self, value: Mapping[str, object]) -> Floats:
        """`[t, d]` of a tensor value that document/v1 gave back."""
        ...


def token_matrix(vectors: Floats) -> Floats:
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
    found = value.get("blocks", value)
    if isinstance(found, list):
        found = {str(next(iter(item["address"].values()))): item["values"] for item in found}
    if not isinstance(found, Mapping) or not all(str(label).isdigit() for label in found):
        raise SettingsError(f"the value of field {VECTORS!r} is no tensor of token vectors: {str(value)[:60]}")
    return [found[label] for label in sorted(found, key=int)]


def stacked(rows: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Rows of one length as a matrix; `[0, 0]` for none."""
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
