"""Named arrays in one `.npz`, without pickle: how codebooks and thresholds are kept."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import BundleError
from late_interaction.files import atomic_write

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path: str | Path, **arrays: object) -> None:
    """Atomically, and byte for byte repeatably."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # of its flag allow_pickle, which no array is named
    atomic_write(Path(path), buffer.getvalue())


def load_arrays(path: str | Path, what: str, names: Sequence[str], max_bytes: int) -> list[NDArray[np.generic]]:
    """The arrays of `names`, read whole.

    Raises: BundleError naming the file, and `what` it was to be.
    """
    file = Path(path)
    try:
        if file.stat().st_size > max_bytes:
            raise BundleError(f"{file} is larger than {max_bytes >> 20} MiB: that is no {what}")
        with file.open("rb") as opened:
            arrays = np.load(opened, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise BundleError(f"{file} is no {what}: it is one array, not an .npz")
            if missing := set(names) - set(arrays.files):
                raise BundleError(f"{file} is no {what}: it has no {min(missing)}")
            return [arrays[name] for name in names]
    except FileNotFoundError:
        raise BundleError(f"no {what} {file}") from None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BundleError(f"{file} is no {what}, or is damaged: {error}") from None
