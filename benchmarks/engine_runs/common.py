"""What all runs of engines share: data in, figures out. Needs numpy alone, as it runs in the peers' environments."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from late_interaction.array_types import Matrix

WARM_UP = 3
K = 10
Search = Callable[[Matrix], list[int]]  # a query's rows to its ten best passages


class Data:
    """Vectors are read, not mapped: a mapped file would count as the engine's memory."""

    def __init__(self, folder: Path) -> None:
        mapped = np.load(folder / "vectors.npy", mmap_mode="r")
        self.dim = int(mapped.shape[1])
        self._path, self._start = folder / "vectors.npy", int(mapped.offset)
        self._file = os.open(self._path, os.O_RDONLY)
        self.offsets = np.load(folder / "offsets.npy")
        rows, offsets = np.load(folder / "queries.npy"), np.load(folder / "query_offsets.npy")
        self.queries = [np.ascontiguousarray(rows[a:b]) for a, b in itertools.pairwise(offsets)]

    @property
    def passages(self) -> int:
        return len(self.offsets) - 1

    def passage(self, number: int) -> Matrix:
        first, last = int(self.offsets[number]), int(self.offsets[number + 1])
        width = 4 * self.dim
        read = bytearray(os.pread(self._file, (last - first) * width, self._start + first * width))
        return np.frombuffer(read, np.float32).reshape(-1, self.dim)

    def vectors(self) -> Matrix:
        found: Matrix = np.load(self._path)
        return found


def timed_search(data: Data, opening: Callable[[], Search]) -> dict[str, Any]:
    """opening: opens the index."""
    start = time.perf_counter()
    search = opening()
    opened = time.perf_counter() - start
    for number, Q in enumerate(data.queries[:WARM_UP]):
        search(Q)
        if not number:
            first = time.perf_counter() - start
    ids, ms = [], []
    cpu = time.process_time()
    for Q in data.queries:
        start = time.perf_counter()
        found = search(Q)
        ms.append(1000 * (time.perf_counter() - start))
        ids.append([int(id_) for id_ in found])
    return {"ids": ids, "ms": ms, "cpu_s": time.process_time() - cpu, "open_s": opened, "first_answer_s": first}


def peak_rss_mb() -> float:
    """Not getrusage's: that begins with what the process that started this one had."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main(build: Callable[[Data, Path], None], search: Callable[[Data, Path], dict[str, Any]]) -> None:
    phase, data, index, out = sys.argv[1], Data(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4])
    if phase == "build":
        start = time.perf_counter()
        build(data, index)
        result: dict[str, Any] = {"seconds": time.perf_counter() - start}
    else:
        result = search(data, index)
    result["peak_rss_mb"] = peak_rss_mb()
    out.write_text(json.dumps(result))
