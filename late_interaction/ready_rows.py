"""Read vectors that were made elsewhere, from arrays, nested lists or base64, and check them.

Numbers stay float16 if they are given so, else they become float32. A flat array has its rows one after the other; the
dimension of the bundle tells where each begins.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix
from late_interaction.errors import UsageError

__all__ = [
    "LONGEST",
    "MAX_ROWS",
    "TOLERANCE",
    "PassageRows",
    "ReadyRows",
    "RowRules",
    "array_of",
    "matrices_of",
    "packed_array",
    "widened",
]

ReadyRows = NDArray[Any]  # float16 or float32: rows [t, d], or all numbers of them one after the other
TOLERANCE = 0.01  # tolerance of a unit row's length
LONGEST = 1_000  # length of a row that is not normalised
MAX_ROWS = 65_536  # most rows of a passage
_MEMBERS = {"dtype", "shape", "base64"}
_TYPES = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"}


class PassageRows(tuple[ReadyRows, ...]):
    """The rows of each passage of a document."""

    __slots__ = ()


def array_of(value: object, what: str, form: str = "rows of numbers") -> ReadyRows:
    """Return numbers of any shape.

    Args:
        value: an array, nested lists, base64 text of float32, or `{"dtype", "shape", "base64"}` with dtype float16,
            bfloat16, float32 or float64.
        what: the name of the value, for error messages.
        form: what the value should be, for error messages.

    Raises:
        UsageError: if the value is none of these.
    """
    if isinstance(value, str):
        return _narrowed(_numbers(value, "float32", what, form), what)
    if isinstance(value, Mapping):
        return _narrowed(_unpacked(value, what, form), what)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # torch raises this for tensors on another device
        raise UsageError(f"{what} must be {form}, and every row must have the same length") from None
    if not array.ndim or (array.dtype.kind not in "fiu" and array.size):
        raise UsageError(f"{what} must be {form}, got {_described(value, array)}")
    return _narrowed(array, what)


def matrices_of(value: object, what: str) -> PassageRows:
    """Return the rows of each passage.

    A list of arrays or an array of three dimensions has several passages; None and an empty tuple have none.

    Raises:
        UsageError: as in `array_of`.
    """
    if isinstance(value, PassageRows):
        return value
    if value is None or (isinstance(value, tuple) and not value):
        return PassageRows()
    if isinstance(value, (list, tuple)) and _is_several(value):
        return PassageRows(array_of(item, f"{what}[{place}]") for place, item in enumerate(value))
    array = array_of(value, what)
    if array.ndim > 3:
        raise UsageError(f"{what} must have shape [t, d] or [passages, t, d], got {list(array.shape)}")
    return PassageRows(array if array.ndim == 3 else (array,))


def _is_several(values: list[object] | tuple[object, ...]) -> bool:
    first = values[0] if values else None
    if isinstance(first, (list, tuple)):
        return bool(first) and isinstance(first[0], (list, tuple, np.ndarray))
    return isinstance(first, (str, Mapping)) or getattr(first, "ndim", 0) >= 2


def packed_array(array: ReadyRows) -> dict[str, object]:
    """Return an array in the JSON form that `array_of` reads."""
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    text = base64.b64encode(data.tobytes()).decode()
    return {"dtype": str(array.dtype), "shape": list(array.shape), "base64": text}


def widened(halves: NDArray[np.uint16]) -> Matrix:
    """Return bfloat16, given as its bits, as float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _described(value: object, array: NDArray[Any]) -> str:
    texts = "texts" if array.dtype.kind in "US" else "other values"
    return f"{type(value).__name__} of {texts}" if array.ndim else type(value).__name__


def _unpacked(value: Mapping[str, object], what: str, form: str) -> NDArray[Any]:
    shape, dtype = value.get("shape"), value.get("dtype")
    whole = isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    if value.keys() != _MEMBERS or dtype not in _TYPES or not isinstance(value["base64"], str) or not whole:
        known = ", ".join(_TYPES)
        raise UsageError(f'{what} must have "dtype" ({known}), "shape" (a list of whole numbers) and "base64" (little-endian)')
    assert isinstance(shape, list)
    numbers = _numbers(value["base64"], str(dtype), what, form)
    if not shape or math.prod(shape) != numbers.size:
        raise UsageError(f"{what}: base64 has {numbers.size} numbers, which do not fit the shape {shape}")
    return numbers.reshape(shape)


def _numbers(text: str, dtype: str, what: str, form: str) -> NDArray[Any]:
    try:
        data = base64.b64decode(text, validate=True)
        found: NDArray[Any] = np.frombuffer(data, _TYPES[dtype])
    except (binascii.Error, ValueError):
        raise UsageError(f"{what} must be {form}, or base64 of {dtype}; this text is neither") from None
    return widened(found) if dtype == "bfloat16" else found


def _narrowed(array: NDArray[Any], what: str) -> ReadyRows:
    if array.dtype == np.float16:
        return np.ascontiguousarray(array, np.float16)
    with np.errstate(over="ignore"):  # values that are too large become infinite and are rejected
        found = np.ascontiguousarray(array, np.float32)
    if found.nbytes >= 1 << 31:
        raise UsageError(f"{what} take {found.nbytes >> 20} MiB; the limit is 2 GiB")
    return found


@dataclass(frozen=True, slots=True)
class RowRules:
    """What rows must satisfy.

    Attributes:
        dim: numbers per row.
        most: most rows of a passage, or of a query.
        unit: whether rows have length 1.
        dense: whether a row is the vector of a whole passage, for error messages.
    """

    dim: int
    most: int = MAX_ROWS
    unit: bool = True
    dense: bool = False

    def checked(self, given: ReadyRows) -> Matrix:
        """Return the rows as `[t, dim]` float32.

        Raises:
            UsageError: if a row does not fit; the message names it.
        """
        if not given.size:
            raise UsageError(f"vectors have shape {list(given.shape)}, but need at least one {self._noun}")
        if given.ndim == 1 and given.size % self.dim == 0:
            given = given.reshape(-1, self.dim)
        if given.ndim != 2 or given.shape[1] != self.dim:
            shape = f"[{'passages' if self.dense else 't'}, {self.dim}]"
            raise UsageError(f"vectors must have shape {shape} for this bundle, got {list(given.shape)}")
        if len(given) > self.most:
            raise UsageError(f"there are {len(given):,} {self._noun}s; the limit is {self.most:,}")
        rows = np.ascontiguousarray(given, np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        self._check(lengths)
        return rows

    @property
    def _noun(self) -> str:
        return "vector" if self.dense else "row"

    def _at(self, place: int) -> str:
        return f"vector {place}" if self.dense else f"row {place} of the vectors"

    def _check(self, lengths: NDArray[np.float64]) -> None:
        if len(row := np.flatnonzero(~np.isfinite(lengths))):
            raise UsageError(f"{self._at(int(row[0]))} contains NaN or infinity")
        if len(row := np.flatnonzero(lengths == 0)):
            raise UsageError(f"{self._at(int(row[0]))} contains only zeros{'' if self.dense else '; remove padding'}")
        wrong = np.abs(lengths - 1) > TOLERANCE if self.unit else lengths >= LONGEST
        if wrong.any():
            length = "of length 1 (divide each by its length)" if self.unit else f"shorter than {LONGEST:,}"
            takes, place = f"{self._noun}s {length}", int(wrong.argmax())
            raise UsageError(f"{self._at(place)} has length {lengths[place]:.4g}, but the bundle needs {takes}")
