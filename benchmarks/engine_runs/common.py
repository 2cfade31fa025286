"""What all runs of engines share: data in, figures out. Needs numpy alone, as it runs in the peers' environments."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WARM_UP = 3
K = 10


class Data:
    def __init__(self, folder: Path) -> None:
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.offsets = np.load(folder / "offsets.npy")
        rows, offsets = np.load(folder / "queries.npy"), np.load(folder / "query_offsets.npy")
        self.queries = [np.ascontiguousarray(rows[a:b]) for a, b in itertools.pairwise(offsets)]

    @property
    def passages(self) -> int:
        return len(self.offsets) - 1

    def passage(self, number: int) -> np.ndarray:
        return np.asarray(self.vectors[self.offsets[number] : self.offsets[number + 1]])


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def timed_search(data: Data, search: Callable[[np.ndarray], list[int]]) -> dict[str, object]:
    """search: a query's rows to its ten best passages."""
    for Q in data.queries[:WARM_UP]:
        search(Q)
    ids, ms = [], []
    for Q in data.queries:
        start = time.perf_counter()
        found = search(Q)
        ms.append(1000 * (time.perf_counter() - start))
        ids.append([int(id_) for id_ in found])
    return {"ids": ids, "ms": ms}


def _peak_rss_mb() -> float:
    """Of this program: getrusage would also count what the process was before it started the program."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main(build: Callable[[Data, Path], None], search: Callable[[Data, Path], dict[str, object]]) -> None:
    phase, data, index, out = sys.argv[1], Data(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4])
    if phase == "build":
        start = time.perf_counter()
        build(data, index)
        result: dict[str, object] = {"seconds": time.perf_counter() - start, "bytes": size_of(index)}
    else:
        result = search(data, index)
    result["peak_rss_mb"] = _peak_rss_mb()
    out.write_text(json.dumps(result))
