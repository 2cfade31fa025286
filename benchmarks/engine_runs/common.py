"""What all runs of engines share: data in, figures out. Needs numpy alone, as it runs in the peers' environments."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # peers' environments have none of ours
    from late_interaction.array_types import Matrix, TokenIds

WARM_UP = 3
K = 10
LADDER_S = 1200  # no further effort is begun after so many seconds
Search = Callable[["Matrix"], list[int]]  # a query's rows to its ten best passages
Prepare = Callable[[Mapping[str, Any]], Search]  # by an effort; none: the engine's defaults


class Data:
    """Vectors are read, not mapped: a mapped file would count as the engine's memory."""

    def __init__(self, folder: Path) -> None:
        self.vectors_file = folder / "vectors.npy"
        self.token_ids_file = folder / "token_ids.npy"
        mapped = np.load(self.vectors_file, mmap_mode="r")
        self.rows, self.dim = mapped.shape
        self.dtype: np.dtype[Any] = mapped.dtype
        self._start = int(mapped.offset)
        self._file = os.open(self.vectors_file, os.O_RDONLY)
        self.offsets = np.load(folder / "offsets.npy")
        rows, offsets = np.load(folder / "queries.npy"), np.load(folder / "query_offsets.npy")
        self.queries = [np.ascontiguousarray(rows[a:b]) for a, b in itertools.pairwise(offsets)]

    @property
    def passages(self) -> int:
        return len(self.offsets) - 1

    def passage(self, number: int) -> Matrix:
        return self.block(number, number + 1)

    def block(self, first: int, last: int) -> Matrix:
        """Rows of the passages from `first` up to `last`, float32."""
        start, stop = int(self.offsets[first]), int(self.offsets[last])
        width = self.dtype.itemsize * self.dim
        read = bytearray((stop - start) * width)
        with memoryview(read) as view:
            done = 0
            while done < len(read):  # one call reads 2 GiB at most
                done += os.preadv(self._file, [view[done:]], self._start + start * width + done)
        return np.frombuffer(read, self.dtype).reshape(-1, self.dim).astype(np.float32, copy=False)

    def token_ids(self) -> Iterator[TokenIds]:
        """Of the rows of each passage, in order."""
        start = np.load(self.token_ids_file, mmap_mode="r").offset
        with self.token_ids_file.open("rb") as file:
            file.seek(start)
            for length in np.diff(self.offsets):
                yield np.fromfile(file, np.uint32, length).astype(np.int32)

    def vectors(self) -> Matrix:
        return self.block(0, self.passages)


def timed_search(data: Data, opening: Callable[[], Prepare], described: Callable[[], dict[str, Any]] = dict) -> dict[str, Any]:
    """opening: opens the index. described: more figures of it, asked after the searches with its defaults."""
    start = time.perf_counter()
    prepare = opening()
    search = prepare({})
    opened = time.perf_counter() - start
    search(data.queries[0])
    first = time.perf_counter() - start
    result = _timed(data, search)
    result |= {"open_s": opened, "first_answer_s": first, **described(), "peak_rss_mb": peak_rss_mb(), "efforts": []}
    begun = time.perf_counter()
    for effort in json.loads(os.environ.get("EFFORTS", "[]")):
        if time.perf_counter() - begun < LADDER_S:
            result["efforts"].append({"effort": effort, **_timed(data, prepare(effort))})
    return result


def _timed(data: Data, search: Search) -> dict[str, Any]:
    for Q in data.queries[:WARM_UP]:
        search(Q)
    ids, ms = [], []
    cpu = time.process_time()
    for Q in data.queries:
        start = time.perf_counter()
        found = search(Q)
        ms.append(1000 * (time.perf_counter() - start))
        ids.append([int(id_) for id_ in found])
    return {"ids": ids, "ms": ms, "cpu_s": time.process_time() - cpu}


def peak_rss_mb() -> float:
    """Not getrusage's: that begins with what the process that started this one had."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main(build: Callable[[Data, Path], None], search: Callable[[Data, Path], dict[str, Any]]) -> None:
    phase, data, index, out = sys.argv[1], Data(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4])
    if phase == "build":
        start = time.perf_counter()
        build(data, index)
        result: dict[str, Any] = {"seconds": time.perf_counter() - start, "peak_rss_mb": peak_rss_mb()}
    else:
        result = search(data, index)
    out.write_text(json.dumps(result))
