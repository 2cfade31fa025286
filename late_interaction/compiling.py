"""Loops compiled by numba when they are first called, and kept on disk beside their file."""

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
    """A decorator for functions of the files `sources`: their own, and those whose functions they inline.

    numba binds kept machine code to the file of the function alone, so that the text of all of them becomes part of the name
    that the code is kept under. options: those of `numba.njit`.
    """
    digest = hashlib.sha256(b"".join(Path(path).read_bytes() for path in sources)).hexdigest()[:12]

    def compiled(function: _Function) -> _Function:
        function.__qualname__ += f"_{digest}"
        kernel: _Function = numba.njit(cache=True, nogil=True, **options)(function)
        return kernel

    return compiled
