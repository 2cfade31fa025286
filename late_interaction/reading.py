"""Opens and reads what others may have made: regular files alone, and no more than a limit."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

__all__ = ["open_regular", "read_regular"]


def open_regular(path: Path) -> io.BufferedReader:
    """Raises: OSError, also for a pipe or device, which may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return io.BufferedReader(io.FileIO(descriptor))


def read_regular(path: Path, most: int) -> bytes:
    """The file's bytes. Raises: OSError, as open_regular; ValueError where it has more than `most`."""
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise ValueError(f"it has {size} bytes, {most} are allowed")
        return file.read(size)
