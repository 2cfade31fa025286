"""Our engine. OURS: JSON with the options of LocalIndex.create, and `exact` of a search. An effort: SearchSettings."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import Data, K, Prepare, Search, main, timed_search

from late_interaction.bundle import Bundle, Manifest, SideRules, write_manifest
from late_interaction.documents import Passage
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings

OPTIONS = json.loads(os.environ.get("OURS", "{}"))
EXACT = OPTIONS.pop("exact", False)
BATCH = 300  # queries at least


def build(data: Data, index: Path) -> None:
    with TemporaryDirectory() as folder:
        made = LocalIndex.create(index, bundle=_bundle(Path(folder), data.dim), schema=MetadataSchema({}), **OPTIONS)
        with made.writer() as writer:
            for number, ids in enumerate(data.token_ids()):
                writer.put(Passage(f"{number}#0", str(number), "", "", {}), data.passage(number), ids)
            writer.commit()


def search(data: Data, index: Path) -> dict[str, Any]:
    indexes: list[LocalIndex] = []

    def opening() -> Prepare:
        opened = LocalIndex.open(index)
        indexes.append(opened)

        def prepared(effort: Mapping[str, Any]) -> Search:
            settings = SearchSettings(**effort)
            return lambda Q: [int(hit.passage.document_id) for hit in opened.search(Q, K, exact=EXACT, settings=settings).hits]

        return prepared

    return timed_search(data, opening, lambda: _described(indexes[0], data, index.resolve()))


def _described(opened: LocalIndex, data: Data, index: Path) -> dict[str, Any]:
    segments = [part.segment for part in opened.snapshot.living]
    return {
        "batch_qps": _batches(opened, data.queries),
        "mapped_mb": sum(np.asarray(array).nbytes for s in segments for array in (s.codes, s.payload)) / 2**20,
        "touched_mb": _touched_mb(index),
        "engine_bytes": opened.bytes_per_token * opened.token_vectors,
    }


def _touched_mb(index: Path) -> float:
    """Of the index's mapped files, what is in this process's memory after the searches."""
    total, mine = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            mine = str(index) in line
        elif mine and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total / 1024


def _batches(opened: LocalIndex, queries: list[np.ndarray]) -> dict[int, float]:
    """Queries per second by threads."""
    many = queries * max(1, BATCH // len(queries))
    rates = {}
    for threads in (1, 2):
        start = time.perf_counter()
        opened.search_many(many, K, exact=EXACT, threads=threads)
        rates[threads] = len(many) / (time.perf_counter() - start)
    return rates


def _bundle(folder: Path, dim: int) -> Bundle:
    """One without a model and without a codebook: the index trains its own."""
    root = folder / "bundle"
    root.mkdir()
    (root / "model.onnx").write_bytes(b"none")
    (root / "tokenizer.json").write_bytes(b"{}")
    side = SideRules(length=32)
    manifest = Manifest(
        source="benchmark", layout="test", dim=dim, query=side, document=side, pad_id=0, max_tokens=64,
        models={"fp32": "model.onnx"},
    )  # fmt: skip
    return write_manifest(root, manifest)


if __name__ == "__main__":
    main(build, search)
