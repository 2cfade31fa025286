"""Compile loops with numba when they are first called, and cache them on disk beside their file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from late_interaction.extras import required

with required("local", "a local index"):
    import numba
    from numba.core import event

__all__ = ["ANNOUNCEMENT", "FAST", "LOG", "Announcement", "compiler"]

LOG = logging.getLogger("late_interaction.compiling")

FAST = {"reassoc", "contract", "nsz"}  # for `fastmath`: sums in any order, but NaN and infinity stay what they are
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Announcement(event.Listener):  # type: ignore[misc]
    """Logs once that a kernel is being compiled. Nothing is logged for kernels that are loaded from the cache.

    Attributes:
        told: whether it was logged.
    """

    def __init__(self) -> None:
        self.told = False

    def on_start(self, event: Any) -> None:
        """Log the first compilation of a function of this package."""
        module = str(event.data["dispatcher"].py_func.__module__)
        if not self.told and module.startswith(f"{__package__}."):
            self.told = True
            LOG.info("compiling kernels, once for this installation: the first run takes some seconds longer")

    def on_end(self, event: Any) -> None:
        """Do nothing."""


ANNOUNCEMENT = Announcement()
event.register("numba:compile", ANNOUNCEMENT)


def compiler(*sources: str, **options: Any) -> Callable[[_Function], _Function]:
    """Return a decorator that compiles functions of the files `sources`.

    numba ties cached machine code to the function's own file only, so a digest of all `sources` (its own file, and those
    whose functions it inlines) becomes part of the cache key.

    Args:
        sources: the files.
        options: options of `numba.njit`.
    """
    digest = hashlib.sha256(b"".join(Path(path).read_bytes() for path in sources)).hexdigest()[:12]

    def compiled(function: _Function) -> _Function:
        """Compile the function."""
        function.__qualname__ += f"_{digest}"
        kernel: _Function = numba.njit(cache=True, nogil=True, **options)(function)
        return kernel

    return compiled
