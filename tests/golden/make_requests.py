"""Writes tests/golden/requests: what Vespa is asked for some of the golden packages. Run after an intended change, and read the
diff:

    cd tests && ../.venv/bin/python -m golden.make_requests
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden.make_packages import golden_package
from vespa_bundles import small_codebook, small_lemur

from query.options import SearchOptions
from query.types import EncodedQuery
from query.vespa_request import search_request
from vespa_app.codecs import Codebooks

__all__ = ["CASES", "REQUESTS", "golden_request"]

REQUESTS = Path(__file__).resolve().parent / "requests"
_QUERY = EncodedQuery(
    np.eye(2, 16, dtype=np.float32),
    'two "words"',
    dense={"dense": np.eye(1, 24, dtype=np.float32)[0], "small": np.eye(1, 16, dtype=np.float32)[0]},
)
_LEMUR = small_lemur(16, 8)
_GATED = dataclasses.replace(_LEMUR.network, gain=128 * _LEMUR.network.gain)  # gates wholly open or shut, by any tanh
_TURNED = np.exp2(-np.abs(np.subtract.outer(np.arange(8), np.arange(8)))).astype(np.float32)
_BOOKS = Codebooks(codebook=small_codebook(16), one_vector=dataclasses.replace(_LEMUR, network=_GATED, turn=_TURNED))
_ALL = {"maxsim": 1.0, "bm25": 0.5, "dense": 2.0}


def _hybrid(weights: Mapping[str, float], fusion: str | None = None, **more: Any) -> SearchOptions:
    return SearchOptions(candidates="hybrid", weights=weights, fusion=fusion, **more)


CASES: dict[str, tuple[str, SearchOptions]] = {  # package, after # an index of it other than its first
    "dense": ("dense", SearchOptions(5, candidates="dense", dense="dense")),
    "dense-bits-explained": (
        "dense", SearchOptions(5, candidates="dense", dense="small", explain=True),
    ),
    "dense-first-stage": ("dense", SearchOptions(5, candidates="dense", dense="dense").by_candidates()),
    "bm25+dense": ("dense", SearchOptions(5, candidates="bm25+dense", dense="dense", rerank=200)),
    "bm25+dense-of-documents": ("dense", SearchOptions(5, candidates="bm25+dense", dense="small", ids=["a", 'b"c'])),
    "bm25+centroid": ("dense", SearchOptions(5, candidates="bm25+centroid")),
    "hybrid-rrf": ("dense", _hybrid(_ALL, "rrf", dense="dense")),
    "hybrid-sum": ("dense", _hybrid(_ALL, "sum", dense="dense")),
    "hybrid-page-grouped": ("dense", _hybrid(_ALL, "rrf", dense="small", offset=10, group=True)),
    "fused-rrf": ("dense", _hybrid({"bm25": 1.0, "dense": 1.0}, "rrf", dense="dense")),
    "fused-sum": ("dense", _hybrid({"bm25": 1.0, "dense": 1.0}, "sum", dense="dense")),
    "fused-dense-alone": ("dense", _hybrid({"dense": 1.0}, dense="dense")),
    "hybrid-without-dense": ("hybrid", _hybrid({"maxsim": 1.0, "bm25": 1.0})),
    "fused-words-alone": ("hybrid", _hybrid({"bm25": 1.0})),
    "pooled-lemur": ("one-vector", SearchOptions(5, candidates="pooled", rerank=300)),
    "pooled-lemur-first-stage": ("one-vector", SearchOptions(5, candidates="pooled").by_candidates()),
    "pooled-lemur-joined": ("one-vector", SearchOptions(5, candidates="bm25+pooled")),
    "pooled-lemur-bfloat16": ("one-vector#halves", SearchOptions(5, candidates="pooled", explain=True)),
    "pooled-mean": ("one-vector#plain", SearchOptions(5, candidates="pooled", rerank=300)),
    "pooled-mean-int8": ("one-vector#means", SearchOptions(5, candidates="pooled", ids=["a", 'b"c'])),
}  # fmt: skip


def golden_request(name: str, scratch: Path) -> str:
    where, options = CASES[name]
    package, _, index = where.partition("#")
    main = golden_package(package, scratch).description
    description = main.index(index or main.settings.schema)
    request = search_request(description, _BOOKS, _QUERY, options, options.candidates)
    body = {**request.body([description.settings.schema]), "(scored by MaxSim at most)": request.reranked}
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    shutil.rmtree(REQUESTS, ignore_errors=True)
    REQUESTS.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            (REQUESTS / f"{case}.json").write_text(golden_request(case, Path(folder) / case), encoding="utf-8")
