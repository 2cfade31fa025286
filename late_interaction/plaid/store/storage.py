"""Files of an index: `.npy` arrays that are written once, checksummed, and memory-mapped."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.bundle import FileEntry
from late_interaction.errors import LocalIndexError
from late_interaction.files import safe_join, sha256_file

__all__ = ["ArrayWriter", "Strings", "StringsWriter", "check_file", "hash_all", "open_array", "string_hash", "write_array"]

HEADER_BYTES = 128
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00"
    rb"\{'descr': '([<|](?:f[248]|[iu][1248]|b1))', 'fortran_order': False, 'shape': \((\d{1,18}),(?: (\d{1,9}))?\), \} *\n"
)
IN_MEMORY_BYTES = 1 << 16  # smaller files are read: a mapping costs a file descriptor and a page


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the header of a .npy file of format 1.0."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little") + text.encode().ljust(HEADER_BYTES - 11) + b"\n"


class ArrayWriter:
    """Appends blocks to `NAME.npy`, whose length need not be known before.

    Args:
        path: the file.
        dtype: type of its cells.
        row_shape: shape of one row, () for 1-D.
    """

    def __init__(self, path: Path, dtype: str, row_shape: tuple[int, ...] = ()) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._rows = 0
        self._file = path.open("wb")
        self._file.write(b" " * HEADER_BYTES)

    def append(self, block: NDArray[Any]) -> None:
        """Append a block of rows."""
        block = np.ascontiguousarray(block, self._dtype)
        if block.shape[1:] != self._row_shape:
            raise ValueError(f"{self._path.name}: rows must have shape {self._row_shape}, got {block.shape[1:]}")
        self._rows += len(block)
        if block.size:
            self._file.write(block.data)

    def close(self) -> FileEntry:
        """Write the header, make everything durable, and return size and checksum."""
        shape = (self._rows, *self._row_shape)
        self._file.seek(0)
        self._file.write(_header(self._dtype.str, shape))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FileEntry(sha256_file(self._path), self._path.stat().st_size)

    def abandon(self) -> None:
        """Close the file without finishing it."""
        self._file.close()


def write_array(path: Path, array: NDArray[Any]) -> FileEntry:
    """Write an array, and return size and checksum of the file."""
    writer = ArrayWriter(path, array.dtype.newbyteorder("<").str, array.shape[1:])
    try:
        writer.append(array)
        return writer.close()
    finally:
        writer.abandon()


def check_file(root: Path, name: str, entry: FileEntry, *, checksum: bool = False) -> Path:
    """Return the path of a listed file.

    Raises:
        LocalIndexError: if the file is missing, has another size or, with `checksum`, has changed; the message names it.
    """
    try:
        path = safe_join(root, name)
    except ValueError:
        raise LocalIndexError(f"{root}: unsafe file name {name!r} in the version") from None
    try:
        size = path.stat().st_size
        digest = sha256_file(path) if checksum and size == entry.bytes else entry.sha256
    except OSError:  # a writer may remove it between the two calls
        raise LocalIndexError(f"{root} is damaged: {name} is missing") from None
    if size != entry.bytes:
        raise LocalIndexError(f"{root} is damaged: {name} has {size} bytes, but was written with {entry.bytes}")
    if digest != entry.sha256:
        raise LocalIndexError(f"{root} is damaged: {name} has changed (its checksum differs)")
    return path


def open_array(
    root: Path, name: str, entry: FileEntry, dtype: str | Sequence[str], ndim: int = 1, *, bulk: bool = False
) -> NDArray[Any]:
    """Open an array read-only; mapped unless it is small.

    Its checksum is compared unless it is large and `bulk`.

    Raises:
        LocalIndexError: if size, type, shape or content differ from what was written; the message names the file.
    """
    small = entry.bytes <= IN_MEMORY_BYTES
    path = check_file(root, name, entry, checksum=not small and not bulk)
    try:
        data = path.read_bytes() if small else b""
        head = data[:HEADER_BYTES] if small else _first_bytes(path)
        if small and hashlib.sha256(data).hexdigest() != entry.sha256:
            raise LocalIndexError(f"{root} is damaged: {name} has changed (its checksum differs)")
        stored_type, shape = _read_header(head, entry.bytes)
        if small:
            array = np.frombuffer(data, stored_type, offset=HEADER_BYTES).reshape(shape)
        else:
            array = np.asarray(np.memmap(path, stored_type, "r", HEADER_BYTES, shape))
    except (OSError, ValueError) as error:
        raise LocalIndexError(f"{root} is damaged: {name} cannot be read ({error})") from None
    known = (dtype,) if isinstance(dtype, str) else dtype
    if array.ndim != ndim or array.dtype.str not in known:
        raise LocalIndexError(f"{root} is damaged: {name} is {array.dtype.str} {array.shape}, not {known[0]}")
    array.flags.writeable = False
    return array


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)


def _read_header(head: bytes, size: int) -> tuple[str, tuple[int, ...]]:
    """Parse type and shape of an array file of `size` bytes that begins with `head`.

    Raises:
        ValueError: if ArrayWriter would not have written that.
    """
    match = _HEADER.fullmatch(head)
    if match is None:
        raise ValueError("its header has changed")
    dtype, shape = match[1].decode(), tuple(int(group) for group in match.groups()[1:] if group is not None)
    if head != _header(dtype, shape) or HEADER_BYTES + math.prod(shape) * np.dtype(dtype).itemsize != size:
        raise ValueError("its header does not fit its size")
    return dtype, shape


class StringsWriter:
    """Writes texts one after the other to `NAME.npy` (UTF-8), with `NAME.offsets.npy [n + 1]`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._blob = ArrayWriter(folder / f"{name}.npy", "|u1")
        self._offsets = ArrayWriter(folder / f"{name}.offsets.npy", "<i8")
        self._offsets.append(np.zeros(1, np.int64))
        self._end = 0

    def append(self, texts: Sequence[str]) -> None:
        """Append texts."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self.append_encoded(np.frombuffer(b"".join(encoded), np.uint8), sizes)

    def append_encoded(self, blob: NDArray[np.uint8], sizes: NDArray[np.int64]) -> None:
        """Append texts that are encoded already."""
        self._blob.append(blob)
        self._offsets.append(self._end + np.cumsum(sizes))
        self._end += int(sizes.sum())

    def close(self) -> dict[str, FileEntry]:
        """Finish the files and return their sizes and checksums."""
        return {f"{self._name}.npy": self._blob.close(), f"{self._name}.offsets.npy": self._offsets.close()}

    def abandon(self) -> None:
        """Close the files without finishing them."""
        self._blob.abandon()
        self._offsets.abandon()


class Strings:
    """A mapped sequence of texts."""

    def __init__(self, root: Path, name: str, files: Mapping[str, FileEntry]) -> None:
        self._where = f"{root} is damaged: {name}.npy"
        self.blob: NDArray[np.uint8] = open_array(root, f"{name}.npy", files[f"{name}.npy"], "|u1", bulk=True)
        self.offsets: NDArray[np.int64] = open_array(root, f"{name}.offsets.npy", files[f"{name}.offsets.npy"], "<i8")
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.blob):
            raise LocalIndexError(f"{self._where} and its offsets disagree")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> str:
        """Return a text.

        Raises:
            LocalIndexError: if the bytes are not text.
        """
        try:
            start, stop = int(self.offsets[place]), int(self.offsets[place + 1])
            if not 0 <= start <= stop <= len(self.blob):
                raise ValueError("offsets do not ascend")
            return self.blob[start:stop].tobytes().decode("utf-8", "surrogatepass")
        except (IndexError, ValueError) as error:
            raise LocalIndexError(f"{self._where}: text {place} cannot be read ({error})") from None

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))


def string_hash(text: str) -> int:
    """Return 64 bits of BLAKE2b of the UTF-8 text: ids are looked up by it and then compared."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def hash_all(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Return the hash of each text."""
    return np.array([string_hash(text) for text in texts], np.uint64)
