"""Files that a run appends to and may remove: the first line has the file's kind and format version.

A file without that line belongs to someone else: it is neither written nor removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

from late_interaction.errors import CollectionError, UsageError
from late_interaction.files import check_writable, fsync_folder, make_folders, remove_file

__all__ = ["FORMAT_VERSION", "AppendedFile", "check_appendable", "check_own_file", "first_line"]

FORMAT_VERSION = 1


def first_line(kind: str, **more: object) -> bytes:
    """Return the first line of a file of that kind."""
    return json.dumps({"colbert-vespa": kind, "format_version": FORMAT_VERSION, **more}).encode() + b"\n"


def check_own_file(path: Path, kind: str) -> None:
    """Check that `path` is missing, empty, or a file of that kind.

    Raises:
        UsageError: if anything else exists there.
    """
    try:
        known = path.is_file() if path.exists() else None
        if known:
            with path.open("rb") as file:
                known = _is_of(file.read(100), kind)
        if known is False:
            raise UsageError(f"{path} is not a file of {kind}, so it is not overwritten; choose another file")
    except OSError as error:
        raise CollectionError(f"file of {kind} {path} cannot be read ({error.strerror}); choose another file") from None


def check_appendable(*paths: Path) -> None:
    """Check that files can be started there.

    Raises:
        CollectionError: if one cannot.
    """
    for path in paths:
        try:
            check_writable(path.parent)
        except OSError as error:
            raise CollectionError(f"{path} cannot be written ({error.strerror}); choose another file") from None


def _is_of(start: bytes, kind: str) -> bool:
    """Tell whether a file that begins with `start` is of that kind, or as empty as a power failure leaves a first line."""
    mark = json.dumps({"colbert-vespa": kind}).encode()[:-1]
    return start.startswith(mark + b",") or mark.startswith(start.rstrip(b"\0"))


class AppendedFile:
    """A file whose lines are durable when `append` returns; if the disk refuses, the file is unchanged."""

    def __init__(self, path: Path, what: str, kind: str) -> None:
        """Name the file. kind: as in its first line. what: its name in messages."""
        self._path, self._what, self._kind = path, what, kind
        self._descriptor: int | None = None
        self._end = 0

    def open(self, keep: int) -> None:
        """Open the file. keep: bytes of the file that stay.

        Raises:
            CollectionError: if it cannot be written, or another feed has it.
            UsageError: if it contains something else.
        """
        check_own_file(self._path, self._kind)
        try:
            make_folders(self._path.parent)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, keep)
            os.fsync(self._descriptor)
            fsync_folder(self._path.parent)
        except BlockingIOError:
            self.close()
            raise CollectionError(f"{self._what} {self._path} is in use by another run; wait for it, or stop it") from None
        except OSError as error:
            self.close()
            raise self._error(error) from None
        self._end = keep

    def append(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            CollectionError: if the disk is full, read-only or gone.
        """
        assert self._descriptor is not None
        left, place = memoryview(data), self._end
        try:
            while left:
                count = os.pwrite(self._descriptor, left, place)
                left, place = left[count:], place + count
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise self._error(error) from None
        self._end = place

    @property
    def opened(self) -> bool:
        """Tell whether the file is open."""
        return self._descriptor is not None

    def remove(self) -> None:
        """Remove the file if it exists and is ours; a disk error is ignored."""
        with contextlib.suppress(OSError, UsageError, CollectionError):
            check_own_file(self._path, self._kind)
            remove_file(self._path)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _error(self, error: OSError) -> CollectionError:
        return CollectionError(
            f"{self._what} {self._path} cannot be written ({error.strerror}); fix the disk, then run again with --resume"
        )
