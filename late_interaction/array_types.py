"""Array types by cell type. Shapes are given in the docstring where an array is an argument."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "F32", "I8", "I16", "I32", "I64", "U8", "U16", "Codes", "Mask", "Matrix", "Packed", "Places", "TokenIds", "TokenVectors",
    "Vector",
]  # fmt: skip

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
I8 = NDArray[np.int8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Matrix = F32  # vectors by row, or scores
Vector = F32  # [dim], one text's vector from a dense model
Mask = NDArray[np.bool_]
Places = I64  # passage numbers
Codes = NDArray[Any]  # centroid numbers: uint16 or int32
TokenIds = I32  # vocabulary ids, one for each token vector; -1 if unknown
TokenVectors = tuple[Matrix, TokenIds | None]  # vectors [t, d], and the ids of their rows; None if unknown
Packed = tuple[I32, U8]  # codes [t] of a passage's vectors, and residuals [t, bytes]
