"""Vectors that training reads a part at a time: an array, chosen rows of another source, or a file."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I32, I64, Matrix, TokenIds
from late_interaction.token_ids import UNKNOWN

__all__ = ["RowFile", "RowSource", "RowsAt"]

BLOCK_ROWS = 1 << 16  # rows written at a time: 16 MiB at 128 dimensions


class RowSource(Protocol):
    """Rows `[n, d]`, float32 or float16, such as an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return n and d."""

    def __len__(self) -> int:
        """Return n."""

    def __getitem__(self, places: slice | I32 | I64, /) -> NDArray[Any]:
        """Return the rows at those places, in that order."""


class RowsAt:
    """The rows of `source` at `places [n]`, without a copy of all of them."""

    def __init__(self, source: RowSource, places: I32 | I64) -> None:
        self._source, self._places = source, places

    @property
    def shape(self) -> tuple[int, ...]:
        """Return n and d."""
        return len(self._places), self._source.shape[1]

    def __len__(self) -> int:
        """Return n."""
        return len(self._places)

    def __getitem__(self, places: slice | I32 | I64, /) -> NDArray[Any]:
        """Return the rows at those places, in that order."""
        return self._source[self._places[places]]


class RowFile:
    """Rows `[n, d]` as float16 in a file without a name, with their vocabulary ids; use it as a context manager.

    The system frees the disk space when the file is closed, and when the process ends or is killed. Blocks of 65,536 rows
    are sorted by id, so that few calls read the rows of one id. Memory use is a block, and 8 bytes per row.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        """Create the file in `folder`.

        Raises:
            OSError: if the disk refuses.
        """
        self._folder, self._dim = folder, dim
        self._file = tempfile.TemporaryFile(prefix=".rows.npz.", dir=folder)  # noqa: SIM115 - closed by `__exit__`
        self._block, self._block_ids = np.empty((0, dim), np.float16), np.empty(0, np.int32)
        self._written = self._waiting = 0
        self._positions: list[I32] = []
        self._ids: list[TokenIds] = []

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # of rows that a full disk has refused
            self._file.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return n and d."""
        return len(self), self._dim

    def __len__(self) -> int:
        """Return n."""
        return self._written + self._waiting

    def append(self, rows: Matrix, token_ids: TokenIds | None) -> None:
        """Append rows `[t, d]`. token_ids: `[t]`, UNKNOWN for a row without an id; None if no row has one.

        Raises:
            OSError: if the disk refuses.
        """
        first = 0
        while first < len(rows):
            if not len(self._block):
                self._block, self._block_ids = np.empty((BLOCK_ROWS, self._dim), np.float16), np.empty(BLOCK_ROWS, np.int32)
            last = min(len(rows), first + BLOCK_ROWS - self._waiting)
            end = self._waiting + last - first
            self._block[self._waiting : end] = rows[first:last]
            self._block_ids[self._waiting : end] = UNKNOWN if token_ids is None else token_ids[first:last]
            first, self._waiting = last, end
            if end == BLOCK_ROWS:
                self._write()

    def token_ids(self) -> TokenIds | None:
        """Return the ids `[n]` of all rows, or None if no row has one.

        Raises:
            OSError: if the disk refuses.
        """
        self._write()
        ids = _joined(self._ids)
        return ids if (ids != UNKNOWN).any() else None

    def __getitem__(self, places: slice | I32 | I64, /) -> NDArray[Any]:
        """Return the rows at those places, in that order.

        Raises:
            OSError: if the disk refuses.
        """
        self._write()
        positions = _joined(self._positions)[places]
        order = np.argsort(positions, kind="stable")
        rows = np.empty((len(positions), self._dim), np.float16)
        rows[order] = self._read(positions[order])
        return rows

    def _write(self) -> None:
        """Write the rows that wait, sorted by id."""
        if not self._waiting:
            return
        rows, ids = self._block[: self._waiting], self._block_ids[: self._waiting]
        order = np.argsort(ids, kind="stable")
        positions = np.empty(len(rows), np.int32)
        positions[order] = np.arange(self._written, self._written + len(rows))
        try:
            self._file.write(rows[order].data)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._folder)) from None
        self._written += len(rows)
        self._positions.append(positions)
        self._ids.append(ids)
        self._block, self._waiting = self._block[:0].copy(), 0

    def _read(self, positions: I32) -> NDArray[Any]:
        """Return the rows at ascending positions of the file, one call for each run of neighbours."""
        rows = np.empty((len(positions), self._dim), np.float16)
        cells, width = rows.view(np.uint8).reshape(-1).data, 2 * self._dim
        firsts = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
        starts = (positions[firsts].astype(np.int64) * width).tolist()
        edges = [*(firsts * width).tolist(), len(cells)]
        for place, (first, last) in zip(starts, itertools.pairwise(edges), strict=True):
            self._fill(cells[first:last], place)
        return rows

    def _fill(self, cells: memoryview, place: int) -> None:
        while cells:
            count = os.preadv(self._file.fileno(), [cells], place)
            if not count:
                raise OSError(errno.EIO, "a temporary file ends too early", str(self._folder))
            cells, place = cells[count:], place + count


def _joined(parts: list[I32]) -> I32:
    """Return the parts as one array, which takes their place."""
    if len(parts) != 1:
        parts[:] = [np.concatenate([np.zeros(0, np.int32), *parts])]
    return parts[0]
