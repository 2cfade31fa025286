"""Two workers of one core each beside one of them: how much faster a cluster encodes.

    python -m benchmarks.ray [--quick] [--json]

A local Ray cluster of two processors, texts of Python's standard library, MiniLM with a projection. `wall` is taken while all
workers are at work, so that starting processes and loading the model count for nobody; contestants take turns. `by_processor`
is what the machine would give if nothing else ran on it: documents by a second of processor time, of all workers together.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from colbert_vespa.cli.stdlib_docs import stdlib_documents
from colbert_vespa.ray.encoding import EncodingWorker
from colbert_vespa.ray.pools import Workers, mapped
from colbert_vespa.ray.shipping import ship
from exporter import ExportOptions, export
from exporter.hub import minilm_folder
from exporter.layouts.scanning import scan_checkpoint
from exporter.plain import make_plain_checkpoint
from feeder.encoding.passages import Splitting
from feeder.sources import ColumnMapping
from late_interaction.bundle import Bundle
from late_interaction.documents import passage_text

BATCH = 32
GOAL = 1.8
CLOCK = "clock"


class TimedWorker(EncodingWorker):
    """As the worker that it is, with the time and its processor time at the beginning and end of each part."""

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa

        self._encoder.encode_documents(["warm"])
        start = [time.time(), time.process_time()]
        for part in super().__call__(table):
            stamp = [os.getpid(), *start, time.time(), time.process_time()]
            yield part.select(["id"]).append_column(CLOCK, pa.array([stamp] * part.num_rows))


def run(dataset: Any, bundle: Bundle, count: int) -> tuple[float, float]:
    """Documents a second, and a processor second of each worker, added up."""
    workers = Workers(count, batch=BATCH)
    arguments = {
        "bundle": ship(bundle), "encoder": workers.encoder(bundle), "splitting": Splitting(), "columns": ColumnMapping(),
        "dtype": "float32",
    }  # fmt: skip
    rows = mapped(dataset, TimedWorker, arguments, workers).take_all()
    parts: dict[tuple[float, ...], int] = Counter(tuple(row[CLOCK]) for row in rows)
    working = sorted({part[0] for part in parts})
    if len(working) != count:
        raise SystemExit(f"{len(working)} workers had something to do, wanted {count}: give more texts")
    begin = max(min(part[1] for part in parts if part[0] == worker) for worker in working)
    end = min(max(part[3] for part in parts if part[0] == worker) for worker in working)
    inside = sum(documents for part, documents in parts.items() if part[1] >= begin and part[3] <= end)
    by_processor = 0.0
    for worker in working:
        own = {part: documents for part, documents in parts.items() if part[0] == worker}
        by_processor += sum(own.values()) / sum(part[4] - part[2] for part in own)
    return inside / (end - begin), by_processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer texts and rounds")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on one line")
    arguments = parser.parse_args()
    out = sys.stderr if arguments.json else sys.stdout
    warnings.simplefilter("ignore")
    import ray
    import ray.data

    count, rounds = (1024, 1) if arguments.quick else (4096, 3)
    documents = list(stdlib_documents())[:count]
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, bundle = Path(scratch) / "checkpoint", Path(scratch) / "bundle"
        sample = [passage_text(document.title, document.text) for document in documents]
        make_plain_checkpoint(scan_checkpoint(minilm_folder()), checkpoint, sample)
        export(checkpoint, bundle, ExportOptions(quantize=("int8",), sample=sample))
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=400 << 20, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        try:
            rows = [{"id": document.id, "title": document.title, "text": document.text} for document in documents]
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows) // BATCH).materialize()
            for _ in range(rounds):
                for workers, figures in found.items():
                    figures.append(run(dataset, Bundle.open(bundle), workers))
        finally:
            ray.shutdown()
    result: dict[str, Any] = {"documents": len(documents), "goal": GOAL}
    for name, place in (("wall", 0), ("by_processor", 1)):
        one, two = (statistics.median(figures[place] for figures in found[workers]) for workers in (1, 2))
        result[name] = {"one": one, "two": two, "ratio": two / one}
        print(f"{name:14} one {one:8.1f} documents/s, two {two:8.1f}: {two / one:.2f} times (goal {GOAL})", file=out)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
