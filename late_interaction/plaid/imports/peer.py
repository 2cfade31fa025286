"""The common form of every importable index: a codebook, and chunks of passages with codes and packed residuals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Mask, Matrix
from late_interaction.codebook import Codebook
from late_interaction.errors import LocalIndexError
from late_interaction.kmeans import unit_rows
from late_interaction.reading import read_regular

__all__ = ["Chunk", "Peer", "chunk_lengths", "from_lowest_bit_first", "peer_codebook", "read_json", "whole_number"]

BITS = (1, 2, 4)
KEPT_OFF = 1e-3  # how far a centroid's length may be from one
MENDED_OFF = 1e-2
BLOCK_ROWS = 1 << 14
MAX_CHUNKS = 1 << 20
MAX_JSON_BYTES = 1 << 30


class Chunk(NamedTuple):
    """Codes and residuals of a run of passages."""

    codes: NDArray[Any]  # [T], whole numbers
    residuals: NDArray[np.uint8]  # [T, dim * bits / 8], lowest bit of every bucket first


@dataclass(frozen=True, eq=False)
class Peer:
    """An index of another engine.

    Attributes:
        name: name of the engine.
        folder: the index.
        codebook: its centroids and buckets.
        unusable: `[C]`, centroids whose length is not one, so that no vector may have them.
        lengths: rows of each passage, chunk by chunk.
        chunk: reads one chunk.
        gone: whether a passage without rows was removed.
    """

    name: str
    folder: Path
    codebook: Codebook
    unusable: Mask
    lengths: tuple[NDArray[np.int64], ...]
    chunk: Callable[[int], Chunk]
    gone: bool

    @property
    def living(self) -> Mask:
        """Tell which passages exist, `[n]` by the peer's numbers."""
        lengths = np.concatenate([np.zeros(0, np.int64), *self.lengths])
        return lengths > 0 if self.gone else np.ones(len(lengths), np.bool_)

    def encoded(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """Yield codes `[t]` and payload `[t, residual_bytes]` of every living passage, in the peer's order.

        About 16,384 rows are read at a time.

        Raises:
            LocalIndexError: if a chunk does not fit the rest; the message names it.
        """
        for number, lengths in enumerate(self.lengths):
            chunk = self.chunk(number)
            self._check(number, chunk, int(lengths.sum()))
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
            first = 0
            while first < len(lengths):
                last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BLOCK_ROWS, "right")) - 1)
                rows = slice(int(offsets[first]), int(offsets[last]))
                codes = self._codes(number, chunk.codes[rows])
                payload = from_lowest_bit_first(np.asarray(chunk.residuals[rows]), self.codebook.bits)
                for passage in range(first, last):
                    own = slice(int(offsets[passage]) - rows.start, int(offsets[passage + 1]) - rows.start)
                    if own.stop > own.start or not self.gone:
                        yield codes[own], payload[own]
                first = last

    def _check(self, number: int, chunk: Chunk, rows: int) -> None:
        width = self.codebook.residual_bytes
        if chunk.codes.shape != (rows,) or chunk.residuals.shape != (rows, width):
            raise LocalIndexError(
                f"{self.folder} is damaged: chunk {number} has codes {chunk.codes.shape} and residuals "
                f"{chunk.residuals.shape}, but its passages have {rows} rows of {width} bytes"
            )

    def _codes(self, number: int, codes: NDArray[Any]) -> NDArray[np.int32]:
        if len(codes) and (codes.min() < 0 or codes.max() >= self.codebook.size):
            raise LocalIndexError(
                f"{self.folder} is damaged: a code in chunk {number} is outside the {self.codebook.size} centroids"
            )
        checked = codes.astype(np.int32)
        if self.unusable[checked].any():
            raise LocalIndexError(
                f"{self.folder} cannot be imported: a vector in chunk {number} has a centroid whose length is not one"
            )
        return checked


def peer_codebook(
    where: Path, centroids: NDArray[Any], cutoffs: NDArray[Any], weights: NDArray[Any], bits: object
) -> tuple[Codebook, Mask]:
    """Return the peer's codebook, with its one set of buckets for every dimension, and which centroids `[C]` are unusable.

    Centroids within 1e-3 of length one are taken as they are; half precision alone causes less than 5e-4. Rows up to 1e-2
    off are scaled to length one, and decoded vectors then differ from the peer's by at most that share. Rows farther off,
    such as the zero row of an empty cluster, are scaled too, but no vector may have them.

    Args:
        where: the index, for error messages.
        centroids: `[C, d]`.
        cutoffs: bucket boundaries.
        weights: bucket values.
        bits: bits per dimension.

    Raises:
        LocalIndexError: if bits are not 1, 2 or 4, or the arrays do not fit.
    """
    if type(bits) is not int or bits not in BITS:
        raise LocalIndexError(f"{where} has {bits!r} bits per dimension; only 1, 2 and 4 can be imported")
    if centroids.ndim != 2 or not centroids.size or cutoffs.shape != ((1 << bits) - 1,) or weights.shape != (1 << bits,):
        raise LocalIndexError(
            f"{where} is damaged: centroids {centroids.shape}, cutoffs {cutoffs.shape}, weights {weights.shape} for {bits} bits"
        )
    with np.errstate(all="ignore"):  # overflow shows as a value that is not finite, or a length that is not one
        rows, cut, weigh = (np.array(part, np.float32) for part in (centroids, cutoffs, weights))
        return _codebook(where, rows, cut, weigh, bits)


def _codebook(where: Path, rows: Matrix, cutoffs: Matrix, weights: Matrix, bits: int) -> tuple[Codebook, Mask]:
    if not np.isfinite(rows).all():
        raise LocalIndexError(f"{where} is damaged: a centroid is not finite")
    off = np.abs(np.linalg.norm(rows, axis=1) - 1)
    mended = off > KEPT_OFF
    rows[mended] = unit_rows(rows[mended])
    dim = rows.shape[1]
    try:
        return Codebook(rows, np.tile(cutoffs, (dim, 1)), np.tile(weights, (dim, 1)), bits), off > MENDED_OFF
    except ValueError as error:
        raise LocalIndexError(f"{where} is damaged: {error}") from None


def from_lowest_bit_first(residuals: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return packed residuals with the highest bit of a bucket first; the peers pack the lowest bit first."""
    if bits == 1:
        return residuals
    single = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).reshape(256, 8 // bits, bits)
    table = np.packbits(single[:, :, ::-1].reshape(256, 8), axis=1)[:, 0]
    found: NDArray[np.uint8] = table[residuals]
    return found


def chunk_lengths(folder: Path, metadata: dict[str, Any]) -> tuple[NDArray[np.int64], ...]:
    """Return the rows of each passage for each chunk: `doclens.N.json` of `num_chunks` chunks."""
    count = whole_number(folder / "metadata.json", metadata, "num_chunks")
    if not 1 <= count <= MAX_CHUNKS:
        raise LocalIndexError(f"{folder / 'metadata.json'} is damaged: num_chunks is {count}")
    found = []
    for number in range(count):
        path = folder / f"doclens.{number}.json"
        lengths = read_json(path, list)
        if not all(type(length) is int and 0 <= length < 1 << 31 for length in lengths):
            raise LocalIndexError(f"{path} is damaged: it is not a list of lengths")
        found.append(np.array(lengths, np.int64))
    return tuple(found)


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file whose top-level value is of type `kind`.

    Raises:
        LocalIndexError: if the file is missing, not JSON, or has another type; the message names it.
    """
    try:
        data = json.loads(read_regular(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        raise LocalIndexError(f"{path.parent} is damaged: {path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise LocalIndexError(f"{path} cannot be read ({error})") from None
    if not isinstance(data, kind):
        raise LocalIndexError(f"{path} is damaged: its top-level value is {type(data).__name__}, not {kind.__name__}")
    return data


def whole_number(path: Path, data: dict[str, Any], name: str) -> int:
    """Return the whole number called `name` of a JSON object.

    Raises:
        LocalIndexError: if it is not a whole number; the message names the file.
    """
    value = data.get(name)
    if type(value) is not int:
        raise LocalIndexError(f"{path} is damaged: {name} is {str(value)[:40]!r}, not a whole number")
    return value
