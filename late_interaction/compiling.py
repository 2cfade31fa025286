"""Compile loops with numba when they are first called, and cache them on disk beside their file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from late_interaction.extras import required

with required("local", "a local index"):
    import numba

__all__ = ["FAST", "compiler"]

FAST = {"reassoc", "contract", "nsz"}  # for `fastmath`: sums in any order, but NaN and infinity stay what they are
_Function = TypeVar("_Function", bound=Callable[..., Any])


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
