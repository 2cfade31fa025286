"""NPZ and safetensors files of vectors: an array of rows `[t, d]` for each document, under its id; or a table.

A file with an array `vectors` is a table: `[n, t, d]`, or rows of all documents `[N, d]` with their numbers in `lengths`
`[n]`. Its other arrays of n elements are columns, `ids` the ids. safetensors files have no texts, so the ids can also be a
JSON list in their metadata. Without ids, the place in the file is the id ([columns] id = "@row").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feeder.sources.packed import bare_suffix, unpacked
from feeder.sources.records import SourceLimits
from feeder.sources.source import Item
from late_interaction.arrays import map_archive
from late_interaction.errors import CollectionError
from late_interaction.extras import required
from late_interaction.ready_rows import widened

__all__ = ["read_array_file"]

VECTORS, LENGTHS, IDS = "vectors", "lengths", "ids"
_TENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


@dataclass(frozen=True, slots=True)
class _StoredArray:
    """An array in a file that is read in parts. halves: its numbers are bfloat16, as uint16."""

    array: NDArray[Any]
    halves: bool = False

    def part(self, start: int, end: int) -> NDArray[Any]:
        return self.of(self.array[start:end])

    def of(self, part: NDArray[Any]) -> NDArray[Any]:
        return widened(np.asarray(part)) if self.halves else np.array(part)


def read_array_file(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    """Yield the records of an array file.

    Raises:
        CollectionError: if the file cannot be read; the message names file and array.
    """
    reader = _tensors if bare_suffix(path) == ".safetensors" else _members
    with unpacked(path, name, limits) as plain:
        try:
            arrays = reader(plain)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise CollectionError(f"{name} cannot be read: {error}") from None
        if VECTORS in arrays:
            yield from _table(arrays, name, limits)
            return
        for place, (id_, stored) in enumerate(arrays.items(), start=1):
            _check_size(stored.array.nbytes, f"{name}: array {id_!a}", limits)
            yield place, {"id": id_, VECTORS: stored.of(stored.array)}


def _table(arrays: Mapping[str, _StoredArray], name: str, limits: SourceLimits) -> Iterator[tuple[int, Item]]:
    vectors, lengths = arrays[VECTORS].array, _lengths(arrays, name)
    count = len(vectors) if lengths is None else len(lengths)
    columns = {key: stored.array for key, stored in arrays.items() if key not in (VECTORS, LENGTHS)}
    if odd := [key for key, array in columns.items() if array.shape != (count,)]:
        raise CollectionError(f"{name}: array {odd[0]!r} must have shape [{count}], got {list(columns[odd[0]].shape)}")
    ends = None if lengths is None else np.cumsum(lengths)
    for place in range(count):
        if vectors.ndim == 3:
            rows = arrays[VECTORS].of(vectors[place] if lengths is None else vectors[place, : lengths[place]])
        else:
            assert ends is not None and lengths is not None
            rows = arrays[VECTORS].part(int(ends[place] - lengths[place]), int(ends[place]))
        _check_size(rows.nbytes, f"{name}:{place + 1}: vectors", limits)
        record = {"id" if key == IDS else key: array[place].item() for key, array in columns.items()}
        yield place + 1, {**record, VECTORS: rows}


def _lengths(arrays: Mapping[str, _StoredArray], name: str) -> NDArray[np.int64] | None:
    """Return the rows of each document; None if all have as many. CollectionError if they do not fit."""
    shape = arrays[VECTORS].array.shape
    if LENGTHS not in arrays:
        if len(shape) != 3:
            raise CollectionError(
                f"{name}: vectors must have shape [n, t, d], or [rows, d] with lengths [n], got {list(shape)}"
            )
        return None
    given = arrays[LENGTHS].array
    if given.ndim != 1 or given.dtype.kind not in "iu" or (given.size and int(given.min()) < 0) or len(shape) not in (2, 3):
        raise CollectionError(f"{name}: lengths must be whole numbers [n], and vectors [rows, d] or [n, t, d]")
    if given.size and int(given.max()) > shape[0 if len(shape) == 2 else 1]:  # before they are summed: a sum may overflow
        raise CollectionError(f"{name}: lengths go up to {int(given.max())}, which does not fit vectors of {list(shape)}")
    lengths = given.astype(np.int64)
    fits = int(lengths.sum()) == shape[0] if len(shape) == 2 else len(lengths) == shape[0]
    if not fits:
        raise CollectionError(f"{name}: lengths, {len(lengths)} of {lengths.sum()} rows, do not fit vectors of {list(shape)}")
    return lengths


def _check_size(size: int, what: str, limits: SourceLimits) -> None:
    if size > limits.line_mb << 20:
        raise CollectionError(f"{what} are larger than {limits.line_mb} MiB; raise limits.line_mb in feed.toml")


def _members(path: Path) -> dict[str, _StoredArray]:
    return {name: _StoredArray(array) for name, array in map_archive(path).items()}


def _tensors(path: Path) -> dict[str, _StoredArray]:
    """Return the tensors. The library checks the file; the numbers are mapped here, because numpy has no bfloat16."""
    with required("sources", str(path)):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    whole = np.memmap(path, np.uint8, "r")  # once: a process has at most about 65,000 maps
    size = int.from_bytes(bytes(whole[:8]), "little")
    header = json.loads(bytes(whole[8 : 8 + size]))
    found = {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        if (dtype := _TENSORS.get(tensor["dtype"])) is None:
            raise ValueError(f"tensor {name!r} has unknown type {tensor['dtype']}; known: {', '.join(_TENSORS)}")
        shape, (start, end) = tuple(tensor["shape"]), tensor["data_offsets"]
        numbers = whole[8 + size + start : 8 + size + end].view(dtype)
        found[name] = _StoredArray(numbers.reshape(shape), tensor["dtype"] == "BF16")
    if IDS in metadata and VECTORS in found:
        ids = json.loads(metadata[IDS])
        if not isinstance(ids, list) or not all(isinstance(id_, str) for id_ in ids):
            raise ValueError("its metadata `ids` are not a list of strings")
        found[IDS] = _StoredArray(np.array(ids, dtype=np.str_))
    return found
