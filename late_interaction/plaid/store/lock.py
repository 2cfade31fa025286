"""The lock of an index: one writer at a time, even if its process dies."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path

from late_interaction.errors import IndexBeingWritten, LocalIndexError

__all__ = ["LOCK", "WriterLock"]

LOCK = "LOCK"


class WriterLock:
    """An flock on `LOCK`, which the system releases when the process ends. A forked child does not have it."""

    def __init__(self, root: Path) -> None:
        """Take the lock.

        Raises:
            IndexBeingWritten: if another writer has the lock.
            LocalIndexError: if the folder cannot be written.
        """
        try:
            self._file = (root / LOCK).open("ab")
        except OSError as error:
            raise LocalIndexError(f"{root} cannot be written: {error}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise IndexBeingWritten(f"{root} is being written by another process or writer; wait for it, or stop it") from None
        _held.add(self)

    @property
    def held(self) -> bool:
        """Tell whether this process holds the lock."""
        return not self._file.closed

    def release(self) -> None:
        """Release the lock."""
        if self.held:
            fcntl.flock(self._file, fcntl.LOCK_UN)  # closing alone would leave the lock with children forked just before
            self._file.close()

    def leave_to_parent(self) -> None:
        """Close the file without unlocking: a child shares the lock with its parent."""
        self._file.close()


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _leave_all() -> None:
    for lock in list(_held):
        lock.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all)
