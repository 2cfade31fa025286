"""Reads what `torch.save` wrote, without torch and without running anything that is in the file.

Such a file is a zip archive of uncompressed members: PREFIX/data.pkl, a pickle that names tensors, and PREFIX/data/N, their
numbers. The pickle is interpreted with a table of the few names that tensors need, each mapped to a stand-in of this module;
any other name is refused, so that nothing of Python can be reached from a file.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import LocalIndexError

__all__ = ["read_tensor", "read_torch_file"]

MAX_PICKLE_BYTES = 1 << 20  # of data.pkl: names and shapes only
MAX_MEMBERS = 1 << 10
BLOCK_BYTES = 1 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, length of its name, length of its extra field
BFLOAT16 = "bfloat16"
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
BROKEN = (
    pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip  # what the pickle machine raises on damaged input


def read_tensor(path: Path, dtypes: str, ndim: int) -> NDArray[Any]:
    """The one tensor of a file. dtypes: kinds of numbers as numpy names them: "f" real, "i" whole, "u" whole without sign.

    Raises: LocalIndexError naming the file where it holds anything else.
    """
    found = read_torch_file(path)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in dtypes or found.ndim != ndim:
        shown = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise LocalIndexError(f"{path} does not hold a tensor of {ndim} dimensions and kind {dtypes!r}, but {shown}")
    return found


def read_torch_file(path: Path) -> object:
    """What the file holds: tensors as arrays, mapped and not to be written to, in plain tuples, lists and dicts.

    Half and bfloat16 numbers become float32.

    Raises: LocalIndexError naming the file: missing, damaged, of torch's format before 1.6, or with a name in it that is no
    tensor's.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise LocalIndexError(
                    f"{path} is no file that torch 1.6 or newer wrote: load it with torch and save it again with torch.save"
                )
        with zipfile.ZipFile(path) as archive:
            return _Archive(path, archive).load()
    except OSError as error:
        raise LocalIndexError(f"{path} cannot be read ({error.strerror or error})") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OverflowError, struct.error) as error:
        raise LocalIndexError(f"{path} is damaged: no whole zip archive ({error})") from None


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        if len(archive.infolist()) > MAX_MEMBERS:
            raise LocalIndexError(f"{path} has more than {MAX_MEMBERS} members: it is no file of an index")
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
                raise LocalIndexError(f"{path}: member {member.filename} is packed or encrypted, which torch never does")
            if member.filename in self._members:
                raise LocalIndexError(f"{path}: member {member.filename} is there twice")
            self._members[member.filename] = member
        pickles = [name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise LocalIndexError(f"{path} is no file of torch.save: it has no PREFIX/data.pkl")
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._arrays: dict[tuple[str, str], NDArray[Any]] = {}

    def load(self) -> object:
        if f"{self._prefix}byteorder" in self._members and self._text("byteorder", 16) != b"little":
            raise LocalIndexError(f"{self.path} was written by a machine of another byte order")
        try:
            return _Unpickler(self, self._text("data.pkl", MAX_PICKLE_BYTES)).load()
        except BROKEN as error:
            raise LocalIndexError(f"{self.path} is damaged: data.pkl ({type(error).__name__}: {error})") from None

    def _member(self, name: str) -> zipfile.ZipInfo:
        member = self._members.get(self._prefix + name)
        if member is None:
            raise LocalIndexError(f"{self.path} is damaged: it has no {self._prefix}{name}")
        return member

    def _text(self, name: str, limit: int) -> bytes:
        member = self._member(name)
        if member.file_size > limit:
            raise LocalIndexError(f"{self.path}: {member.filename} has {member.file_size} bytes, {limit} are allowed")
        return self._archive.read(member)

    def storage(self, key: str, dtype: str, count: int) -> NDArray[Any]:
        """The numbers of one member, as they are in the file; its checksum is compared first."""
        if (key, dtype) not in self._arrays:
            member = self._member(f"data/{key}")
            stored = np.dtype("<u2" if dtype == BFLOAT16 else dtype)
            if member.file_size != count * stored.itemsize:
                raise LocalIndexError(
                    f"{self.path}: {member.filename} has {member.file_size} bytes, its {count} numbers take "
                    f"{count * stored.itemsize}"
                )
            with self._archive.open(member) as opened:
                while opened.read(BLOCK_BYTES):
                    pass  # the last block raises BadZipFile where the checksum differs
            with self.path.open("rb") as file:
                file.seek(member.header_offset)
                _, name_bytes, extra_bytes = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            start = member.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes
            if not count:
                return np.zeros(0, stored)
            self._arrays[key, dtype] = np.memmap(self.path, stored, "r", start, (count,))
        return self._arrays[key, dtype]


class _StorageType:
    """Stand-in for torch.FloatStorage and the like: a name, not to be called or written to."""

    __slots__ = ("_dtype",)

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype

    @property
    def dtype(self) -> str:
        return self._dtype


class _Storage:
    __slots__ = ("_bfloat16", "_values")

    def __init__(self, values: NDArray[Any], bfloat16: bool) -> None:
        self._values = values
        self._bfloat16 = bfloat16

    def tensor(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> NDArray[Any]:
        values = self._values
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
        if math.prod(size) > len(values) or (all(size) and last >= len(values)):
            raise ValueError(f"shape {size} with strides {stride} from {offset} is outside the {len(values)} numbers stored")
        steps = tuple(step * values.itemsize for step in stride)
        view = np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)
        if self._bfloat16:
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view.astype(np.float32) if view.dtype == np.float16 else view


class _Rebuild:
    """Stand-in for torch._utils._rebuild_tensor_v2."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> NDArray[Any]:
        storage, offset, size, stride = arguments[:4]  # then whether it has a gradient, hooks, metadata
        if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise ValueError("a tensor of unknown form")
        if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)) or len(size) != len(stride) or len(size) > 4:
            raise ValueError("a tensor of impossible shape")
        assert isinstance(offset, int)
        return storage.tensor(offset, size, stride)


class _NoHooks:
    """Stand-in for collections.OrderedDict, which tensors name for their (never saved) hooks."""

    __slots__ = ()

    def __call__(self) -> dict[str, object]:
        return {}


# what `find_class` gives out is all that a pickle can reach: three stand-ins, which call nothing they are given
class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: _Archive, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._archive = archive
        self._known: dict[tuple[str, str], object] = {("torch", name): _StorageType(d) for name, d in STORAGES.items()}
        self._known["torch._utils", "_rebuild_tensor_v2"] = _Rebuild()
        self._known["collections", "OrderedDict"] = _NoHooks()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise LocalIndexError(f"{self._archive.path} is refused: it names {module}.{name}, which no tensor needs")
        return self._known[module, name]

    def persistent_load(self, reference: Any) -> _Storage:
        if not isinstance(reference, tuple) or len(reference) != 5:
            raise ValueError("a storage of unknown form")
        word, kind, key, _, count = reference  # the fourth: the device it was on
        if word != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str) or type(count) is not int:
            raise ValueError("a storage of unknown form")
        return _Storage(self._archive.storage(key, kind.dtype, count), kind.dtype == BFLOAT16)
