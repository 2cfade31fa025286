"""Our engine. OURS: JSON with the options of LocalIndex.create, and `exact` for its exact search."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import Data, K, main, timed_search

from late_interaction.bundle import Manifest, SideRules, write_manifest
from late_interaction.documents import Passage
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex

OPTIONS = json.loads(os.environ.get("OURS", "{}"))
EXACT = OPTIONS.pop("exact", False)


def build(data: Data, index: Path) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "bundle"
        root.mkdir()
        (root / "model.onnx").write_bytes(b"none")
        (root / "tokenizer.json").write_bytes(b"{}")
        side = SideRules(length=32)
        manifest = Manifest(
            source="benchmark", layout="test", dim=data.vectors.shape[1], query=side, document=side, pad_id=0, max_tokens=64,
            models={"fp32": "model.onnx"},
        )  # fmt: skip
        bundle = write_manifest(root, manifest)
        made = LocalIndex.create(index, bundle=bundle, schema=MetadataSchema({}), **OPTIONS)
        with made.writer() as writer:
            for number in range(data.passages):
                writer.put(Passage(f"{number}#0", str(number), "", "", {}), data.passage(number))
            writer.commit()


def search(data: Data, index: Path) -> dict[str, object]:
    start = time.perf_counter()
    opened = LocalIndex.open(index)
    opening = time.perf_counter() - start
    opened.search(data.queries[0], K)
    first = time.perf_counter() - start
    result = timed_search(data, lambda Q: [int(h.passage.document_id) for h in opened.search(Q, K, exact=EXACT).hits])
    many = data.queries * max(1, 300 // len(data.queries))
    rates = {}
    for threads in (1, 2):
        start = time.perf_counter()
        opened.search_batch(many, K, exact=EXACT, threads=threads)
        rates[threads] = len(many) / (time.perf_counter() - start)
    mapped = sum(np.asarray(array).nbytes for array in (opened.snapshot.living[0].segment.codes,
                                                        opened.snapshot.living[0].segment.payload))  # fmt: skip
    more = {"open_s": opening, "first_answer_s": first, "batch_qps": rates, "mapped_mb": mapped / 2**20}
    return {**result, **more, "engine_bytes": opened.bytes_per_token * opened.token_vectors}


if __name__ == "__main__":
    main(build, search)
