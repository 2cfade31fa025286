"""Read files of `torch.save` without torch, and without executing anything in them.

Such a file is a zip archive of uncompressed members: PREFIX/data.pkl, a pickle that names tensors, and PREFIX/data/N, their
numbers. `archives.py` checks the archive and `pickles.py` reads the pickle. This module interprets the few names that
tensors need, and checks that no tensor reaches beyond its numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from late_interaction.archives import Archive, opened_archive
from late_interaction.errors import LocalIndexError
from late_interaction.plaid.imports.pickles import BROKEN, Name, RefusedPickle, read_pickle
from late_interaction.reading import open_regular

__all__ = ["read_tensor", "read_torch_file"]

MAX_PICKLE_BYTES = 1 << 20  # of data.pkl, which has names and shapes only
MAX_TENSORS = 16  # an index has two in one file; each may become a copy
MAX_DIMENSIONS = 4
BFLOAT16 = "bfloat16"
STORAGES = {
    Name("torch", "DoubleStorage"): "<f8",
    Name("torch", "FloatStorage"): "<f4",
    Name("torch", "HalfStorage"): "<f2",
    Name("torch", "BFloat16Storage"): BFLOAT16,
    Name("torch", "LongStorage"): "<i8",
    Name("torch", "IntStorage"): "<i4",
    Name("torch", "ShortStorage"): "<i2",
    Name("torch", "CharStorage"): "|i1",
    Name("torch", "ByteStorage"): "|u1",
    Name("torch", "BoolStorage"): "|b1",
}
REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
NO_HOOKS = Name("collections", "OrderedDict")  # which tensors name for their (never saved) hooks


def read_tensor(path: Path, dtypes: str, ndim: int) -> NDArray[Any]:
    """Read the only tensor of a file.

    Args:
        path: the file.
        dtypes: kinds of numbers as numpy names them: "f" real, "i" whole, "u" unsigned whole.
        ndim: number of dimensions.

    Raises:
        LocalIndexError: if the file holds anything else; the message names it.
    """
    found = read_torch_file(path)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in dtypes or found.ndim != ndim:
        shown = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise LocalIndexError(f"{path} must hold a tensor of {ndim} dimensions and kind {dtypes!r}, but it holds {shown}")
    return found


def read_torch_file(path: Path) -> object:
    """Return what the file holds: tensors as read-only mapped arrays, in plain tuples, lists and dicts.

    Half and bfloat16 numbers become float32.

    Raises:
        LocalIndexError: if the file is missing, damaged, in torch's format before 1.6, or has a name that no tensor needs;
            the message names the file.
    """
    try:
        with open_regular(path) as file:
            if file.read(4) != b"PK\x03\x04":
                raise LocalIndexError(
                    f"{path} was not written by torch 1.6 or newer; load it with torch and save it again with torch.save"
                )
        with opened_archive(path) as archive:
            return _TorchFile(archive).load()
    except OSError as error:
        raise LocalIndexError(f"{path} cannot be read ({error.strerror or error})") from None
    except RefusedPickle as error:
        raise LocalIndexError(f"{path} is refused: {error}, which no tensor needs") from None
    except ValueError as error:
        raise LocalIndexError(f"{path} is damaged: {error}") from None


class _Storage(NamedTuple):
    values: NDArray[Any]
    bfloat16: bool


class _TorchFile:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        pickles = [name for name in archive.names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is not a file of torch.save: it has no PREFIX/data.pkl")
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._tensors = 0

    def load(self) -> object:
        order = f"{self._prefix}byteorder"
        if order in self._archive.names and self._archive.read(order, 16) != b"little":
            raise ValueError("it was written on a machine with another byte order")
        data = self._archive.read(f"{self._prefix}data.pkl", MAX_PICKLE_BYTES)
        known: dict[Name, Callable[..., object] | None] = dict.fromkeys(STORAGES)
        known |= {REBUILD: self._tensor, NO_HOOKS: lambda: {}}
        try:
            return read_pickle(data, known, self._storage)
        except RefusedPickle:
            raise
        except BROKEN as error:
            raise ValueError(f"data.pkl ({type(error).__name__}: {error})") from None

    def _storage(self, reference: object) -> _Storage:
        if type(reference) is not tuple or len(reference) != 5:
            raise ValueError("a storage of unknown form")
        word, kind, key, _, count = reference  # the fourth is the device it was on
        if (
            word != "storage"
            or type(kind) is not Name
            or kind not in STORAGES
            or type(key) is not str
            or type(count) is not int
        ):
            raise ValueError("a storage of unknown form")
        dtype = STORAGES[kind]
        stored = np.dtype("<u2" if dtype == BFLOAT16 else dtype)
        name = f"{self._prefix}data/{key}"
        if name not in self._archive.names:
            raise ValueError(f"it has no {name}")
        if (size := self._archive.size(name)) != count * stored.itemsize:
            raise ValueError(f"{name} has {size} bytes, but its {count} numbers take {count * stored.itemsize}")
        return _Storage(self._numbers(name, stored, count), dtype == BFLOAT16)

    @functools.cache  # noqa: B019  # of one file, for as long as it is read
    def _numbers(self, name: str, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        """Map the numbers of a storage; their checksum is compared first."""
        start = self._archive.place(name)
        return np.memmap(self._archive.path, dtype, "r", start, (count,)) if count else np.zeros(0, dtype)

    def _tensor(self, *arguments: object) -> NDArray[Any]:
        """Rebuild a tensor as torch._utils._rebuild_tensor_v2 does."""
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise RefusedPickle(f"it has more than {MAX_TENSORS} tensors")
        if len(arguments) < 4:
            raise ValueError("a tensor of unknown form")
        storage, offset, size, stride = arguments[:4]  # then whether it has a gradient, hooks, metadata
        if type(storage) is not _Storage or type(size) is not tuple or type(stride) is not tuple:
            raise ValueError("a tensor of unknown form")
        if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
            raise ValueError("a tensor of impossible shape")
        if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
            raise ValueError("a tensor of impossible shape")
        assert isinstance(offset, int)
        return _view(storage, offset, size, stride)


def _view(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> NDArray[Any]:
    values = storage.values
    if not all(size):
        return np.zeros(size, np.float32 if storage.bfloat16 or values.dtype == np.float16 else values.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(values) or last >= len(values):
        raise ValueError(f"shape {size} with strides {stride} from {offset} is outside the {len(values)} numbers stored")
    steps = tuple(step * values.itemsize if n > 1 else values.itemsize for n, step in zip(size, stride, strict=True))
    view = np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)
    if storage.bfloat16:
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view.astype(np.float32) if view.dtype == np.float16 else view
