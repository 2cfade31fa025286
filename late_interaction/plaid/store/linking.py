"""Build the links of int8 rows (nearest.py): HNSW by faiss, in its own process.

faiss brings an OpenMP library, and two of those in one process (torch has another) end it on macOS; the process also
returns the memory of the build.

The graph links the rows' directions by Euclidean distance; a search along it compares products. If rows have different
lengths, this found more than graphs by inner product, and more than rows with an extra cell that makes them equally long.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from late_interaction.array_types import I8, I32, Matrix
from late_interaction.bundle import FileEntry
from late_interaction.cores import cores
from late_interaction.errors import LocalIndexError
from late_interaction.extras import required
from late_interaction.plaid.store.nearest import LINKS
from late_interaction.plaid.store.storage import ArrayWriter
from late_interaction.workers.frames import pack, read_frame
from late_interaction.workers.process import WorkerProcess

__all__ = ["can_link", "main", "row_files", "write_links"]

EXPANSION = 80  # rows considered for the links of a new one: faiss's efConstruction
BLOCK = 1 << 14  # rows added or sent at a time


def can_link() -> bool:
    """Tell whether faiss is installed."""
    return find_spec("faiss") is not None


def row_files(stem: str) -> tuple[str, str, str]:
    """Return the names of the files of a segment's rows: rows, scales, links."""
    return f"{stem}.npy", f"{stem}.scales.npy", f"{stem}.links.npy"


def write_links(rows: Path) -> dict[str, FileEntry]:
    """Write the links `[n, LINKS]` of the vectors in the files `row_files(rows)`, beside them.

    Raises:
        LocalIndexError: if the process that builds them ends early.
    """
    _, _, name = row_files(rows.stem)
    lacking = len(np.load(rows, mmap_mode="r", allow_pickle=False))
    writer, process = ArrayWriter(rows.with_name(name), "<i4", (LINKS,)), WorkerProcess(rows, cores(), __name__)
    buffer = bytearray()
    try:
        process.socket.setblocking(True)
        while lacking > 0 and (frame := read_frame(process.socket, buffer)) is not None:
            links = np.frombuffer(frame.rows, "<i4").reshape(-1, LINKS)
            writer.append(links)
            lacking -= len(links)
        if lacking:
            raise LocalIndexError(
                f"{rows.parent}: the process that links dense vectors ended early; commit again with more memory "
                f"free, or uninstall faiss-cpu to search without links"
            )
        return {name: writer.close()}
    finally:
        process.stop()
        writer.abandon()


def main(arguments: Sequence[str]) -> None:
    """Run the process. arguments: the file of rows."""
    rows = np.load(arguments[0], mmap_mode="r", allow_pickle=False)
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        for links in _links(rows):
            connection.sendall(pack(1, {}, links.astype("<i4").tobytes()))


def _links(rows: I8) -> Iterator[I32]:
    """Yield the links block by block."""
    with required("hnsw", "a graph of dense vectors"):
        import faiss
    parent = os.getppid()
    index = faiss.IndexHNSWSQ(rows.shape[1], faiss.ScalarQuantizer.QT_8bit_direct_signed, LINKS // 2, faiss.METRIC_L2)
    index.hnsw.efConstruction = EXPANSION
    for block in _directions(rows):
        if os.getppid() != parent:
            return  # nobody waits for the links
        if not index.is_trained:
            index.train(block[:1])
        index.add(block)
    offsets, links = (faiss.vector_to_array(array) for array in (index.hnsw.offsets, index.hnsw.neighbors))
    lowest = offsets[:-1].astype(np.int64)[:, None] + np.arange(LINKS)
    for start in range(0, len(rows), BLOCK):
        yield links[lowest[start : start + BLOCK]]


def _directions(rows: I8) -> Iterator[Matrix]:
    """Yield blocks of the rows as whole numbers, all as long as the shortest."""
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    lengths = [np.linalg.norm(block.astype(np.float32), axis=1, keepdims=True) for block in blocks]
    shortest = min((block[block > 0].min() for block in lengths if block.any()), default=1)
    for block, length in zip(blocks, lengths, strict=True):
        yield np.rint(block * (shortest / np.maximum(length, shortest))).astype(np.float32)
