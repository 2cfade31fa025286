"""Writes cross_encoder/: a tiny checkpoint, and the scores that sentence-transformers gives pairs of it.

cd tests && ../.venv/bin/python -m golden.make_cross_encoder
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import checkpoints
import numpy as np
import sentence_transformers

FOLDER = Path(__file__).with_name("cross_encoder")
QUERIES = ("what is the capital of france?", "late interaction", "naïve café ... überraschung", "wait " * 40, "東京の天気")
PASSAGES = (
    *checkpoints.TEXTS,
    "",
    "x",
    "[SEP] [CLS] a token spelt out",
    "e.g. this, that.",
    "\u200bzero\u200bwidth",
    "word " * 90,
)


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    checkpoints.cross_encoder(FOLDER / "checkpoint", positions=64)
    model = sentence_transformers.CrossEncoder(str(FOLDER / "checkpoint"), device="cpu", local_files_only=True)
    scores = [[float(model.predict([[query, passage]])[0]) for passage in PASSAGES] for query in QUERIES]
    assert np.ptp(scores) > 1
    made = {
        "sentence_transformers": sentence_transformers.__version__,
        "queries": QUERIES,
        "passages": PASSAGES,
        "scores": scores,
    }
    (FOLDER / "scores.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
