"""Open and read files that others may have made: regular files only, up to a size limit."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

__all__ = ["open_regular", "read_regular"]


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file.

    Raises:
        OSError: if it cannot be opened, or is a pipe or device, which may never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return io.BufferedReader(io.FileIO(descriptor))


def read_regular(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        OSError: as in `open_regular`.
        ValueError: if it has more than `most` bytes.
    """
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise ValueError(f"it has {size} bytes; the limit is {most}")
        return file.read(size)
