"""Where following a graph of dense vectors beats comparing them all: recall and processor time of the local engine's search.

    python -m benchmarks.nearest [--quick] [--json] [--rows 1000000] [--dim 384]

Rows are made up: clusters of a hundred directions in 96 dimensions with a falling spectrum, turned into `dim`, some noise on
all; queries are drawn as the rows are, and wider. The graph is built as a commit builds it, on all cores, which takes minutes
for a million.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.plaid.store import nearest
from late_interaction.plaid.store.dense import DenseRows, DenseWriter, open_rows

LATENT, OF_A_CLUSTER, BLOCK = 96, 100, 1 << 15
QUERIES = 40


def drawn(rng: np.random.Generator, centres: Matrix, turn: Matrix, count: int, spread: float) -> Matrix:
    rows = centres[rng.integers(0, len(centres), count)] + spread * rng.standard_normal((count, LATENT)).astype(np.float32)
    found = rows @ turn
    noise = rng.standard_normal(found.shape).astype(np.float32) / np.sqrt(np.float32(found.shape[1]))
    found += 0.1 * np.linalg.norm(found, axis=1, keepdims=True) * noise
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def made_up(folder: Path, count: int, dim: int) -> tuple[DenseRows, Matrix, float]:
    """Rows in files as a segment has them, queries, and seconds that closing the files took: the graph."""
    rng = np.random.default_rng(0)
    turn = (rng.standard_normal((LATENT, dim)) / np.sqrt(1 + np.arange(LATENT))[:, None]).astype(np.float32)
    centres = rng.standard_normal((max(1, count // OF_A_CLUSTER), LATENT)).astype(np.float32)
    writer = DenseWriter(folder, "made", dim)
    for start in range(0, count, BLOCK):
        writer.append(drawn(rng, centres, turn, min(BLOCK, count - start), 0.9))
    start_s = time.perf_counter()
    files = writer.close()
    return open_rows(folder, "made", files, count, dim), drawn(rng, centres, turn, QUERIES, 1.0), time.perf_counter() - start_s


def timed(ask: Callable[[np.ndarray], np.ndarray], queries: Matrix) -> tuple[list[set[int]], float]:
    """Places found, and milliseconds of processor time a query."""
    ask(queries[0])
    start = time.process_time()
    found = [ask(query) for query in queries]
    return [set(places.tolist()) for places in found], 1000 * (time.process_time() - start) / len(queries)


def measured(rows: DenseRows, queries: Matrix, k: int, share: float) -> dict[str, float]:
    selected = np.random.default_rng(1).random(len(rows.scales)) < share
    exact, exact_ms = timed(lambda query: rows.nearest(query, k, selected, exact=True)[0], queries)
    found, graph_ms = timed(lambda query: rows.nearest(query, k, selected)[0], queries)
    recall = float(np.mean([len(own & all_) / max(1, len(all_)) for own, all_ in zip(found, exact, strict=True)]))
    return {"k": k, "selected": share, "recall": recall, "exact_ms": exact_ms, "graph_ms": graph_ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    count = 20_000 if options.quick else options.rows
    nearest.LINKED_FROM, nearest.PAYS = 0, 0  # always, so that one sees where it does not pay
    with tempfile.TemporaryDirectory() as folder:
        rows, queries, build_s = made_up(Path(folder), count, options.dim)
        found = [measured(rows, queries, k, share) for k in (10, 200, 500) for share in (1.0, 0.2, 0.05)]
    if options.json:
        print(json.dumps({"rows": count, "dim": options.dim, "build_s": build_s, "measured": found}))
        return
    print(f"{count:,} rows of {options.dim}, graph in {build_s:.0f} s", file=sys.stderr)
    for line in found:
        print("  ".join(f"{name} {value:.3g}" for name, value in line.items()))


if __name__ == "__main__":
    main()
