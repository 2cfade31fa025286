"""Store arrays in files without pickle: several named ones in an `.npz` (codebooks, thresholds), one in an `.npy`.

Nothing is allocated before the header has been compared with the size of the file.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from late_interaction.archives import opened_archive
from late_interaction.errors import BundleError
from late_interaction.files import atomic_write
from late_interaction.reading import open_regular

__all__ = ["load_arrays", "map_archive", "map_array", "map_members", "save_arrays"]

MAX_HEADER = 10_000  # bytes, the same limit as numpy's
MAX_DIMENSIONS = 8
MANY_MEMBERS = 1 << 17  # arrays in a source, one for each document
_MAGIC = re.compile(rb"\x93NUMPY([\x01-\x03])\x00")
_HEADER = re.compile(
    rb"\{ *'descr': *'([<>|](?:f[248]|[iu][1248]|b1|U\d{1,7}))' *, *'fortran_order': *(True|False) *, *"
    rb"'shape': *\(([\d, ]*)\) *,? *\} *\n?"
)


class _Header(NamedTuple):
    """The header of an array.

    Attributes:
        start: offset of the first number.
    """

    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    shape: tuple[int, ...]
    start: int


def save_arrays(path: str | Path, **arrays: object) -> None:
    """Write arrays atomically; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # of its flag allow_pickle, which no array is named
    atomic_write(Path(path), buffer.getvalue())


def load_arrays(path: str | Path, what: str, names: Sequence[str], max_bytes: int) -> list[NDArray[np.generic]]:
    """Read the arrays called `names`.

    Args:
        path: the `.npz` file.
        names: the arrays to read.
        what: what the file should be, for error messages.
        max_bytes: the most bytes an array may have.

    Raises:
        BundleError: if the file is missing, damaged or lacks an array; the message names it.
    """
    file = Path(path)
    try:
        with opened_archive(file) as archive:
            if missing := {f"{name}.npy" for name in names} - set(archive.names):
                raise BundleError(f"{file} is not a {what}: it lacks {min(missing).removesuffix('.npy')}")
            return [_array(archive.read(f"{name}.npy", max_bytes)) for name in names]
    except FileNotFoundError:
        raise BundleError(f"{what} {file} does not exist") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is not a {what}, or is damaged: {error}") from None


def map_members(path: str | Path, what: str, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Map the byte arrays `names` of an `.npz`; return nothing if any of them is missing.

    Only arrays of bytes can be mapped: wider numbers might be misaligned.

    Raises:
        BundleError: if the file cannot be read or is damaged; the message names the file and `what` it should be.
    """
    file = Path(path)
    try:
        with opened_archive(file) as archive:
            if not {f"{name}.npy" for name in names} <= set(archive.names):
                return {}
            return {name: _mapped(file, archive.start(f"{name}.npy"), archive.size(f"{name}.npy")) for name in names}
    except FileNotFoundError:
        raise BundleError(f"{what} {file} does not exist") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{file} is not a {what}, or is damaged: {error}") from None


def map_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Map all arrays of an `.npz`, numbers or texts, read-only; checksums are not compared.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is damaged or holds anything else.
    """
    found: dict[str, NDArray[Any]] = {}
    with opened_archive(path, MANY_MEMBERS) as archive:
        whole = np.memmap(path, np.uint8, "r")
        for name in archive.names:
            start, size = archive.start(name), archive.size(name)
            header = _header(bytes(whole[start : start + min(size, MAX_HEADER + 12)]), size, texts=True)
            numbers = whole[start + header.start : start + size].view(header.dtype)
            found[name.removesuffix(".npy")] = numbers.reshape(header.shape, order=header.order)
    return found


def _mapped(path: Path, start: int, size: int) -> NDArray[Any]:
    with open_regular(path) as file:
        file.seek(start)
        header = _header(file.read(min(size, MAX_HEADER + 12)), size)
        if header.dtype.itemsize != 1 or header.order != "C":
            raise ValueError(f"it holds {header.dtype} instead of bytes")
        if not math.prod(header.shape):
            return np.zeros(header.shape, header.dtype)
        return np.asarray(np.memmap(file, header.dtype, "r", start + header.start, header.shape))


def map_array(path: Path) -> NDArray[Any]:
    """Map the numbers of an `.npy`, read-only.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is damaged or holds anything but numbers.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        header = _header(file.read(MAX_HEADER + 12), size)
        if not math.prod(header.shape):
            return np.zeros(header.shape, header.dtype)
        return np.asarray(np.memmap(file, header.dtype, "r", header.start, header.shape, header.order))


def _array(data: bytes) -> NDArray[Any]:
    header = _header(data[: MAX_HEADER + 12], len(data))
    return np.array(np.frombuffer(data, header.dtype, offset=header.start).reshape(header.shape, order=header.order))


def _header(head: bytes, size: int, *, texts: bool = False) -> _Header:
    """Parse the header of a file of `size` bytes; numpy would evaluate it as Python and trust it."""
    magic = _MAGIC.match(head)
    if magic is None:
        raise ValueError("it is not an .npy file")
    first = 10 if magic[1] == b"\1" else 12
    start = first + int.from_bytes(head[8:first], "little")
    match = _HEADER.fullmatch(head[first:start]) if start <= len(head) else None
    if match is None or (b"U" in match[1] and not texts):
        raise ValueError("its header does not describe an array of numbers")
    lengths = [part.strip() for part in match[3].split(b",")]
    lengths = lengths[:-1] if not lengths[-1] else lengths
    if len(lengths) > MAX_DIMENSIONS or not all(re.fullmatch(rb"\d{1,18}", length) for length in lengths):
        raise ValueError("its header has no valid shape")
    dtype, shape = np.dtype(match[1].decode()), tuple(map(int, lengths))
    if start + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{dtype} {shape} does not fit its {size} bytes")
    return _Header(dtype, "F" if match[2] == b"True" else "C", shape, start)
