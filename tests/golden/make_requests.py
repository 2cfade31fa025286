"""Writes tests/golden/requests: what Vespa is asked for the golden packages `dense` and `hybrid`. Run after an intended change,
and read the diff:

    cd tests && ../.venv/bin/python -m golden.make_requests
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from golden.make_packages import golden_package
from vespa_bundles import small_codebook

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
_ALL = {"maxsim": 1.0, "bm25": 0.5, "dense": 2.0}


def _hybrid(weights: Mapping[str, float], fusion: str | None = None, **more: Any) -> SearchOptions:
    return SearchOptions(candidates="hybrid", weights=weights, fusion=fusion, **more)


CASES: dict[str, tuple[str, SearchOptions]] = {
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
}  # fmt: skip


def golden_request(name: str, scratch: Path) -> str:
    package, options = CASES[name]
    description = golden_package(package, scratch).description
    request = search_request(description, Codebooks(codebook=small_codebook(16)), _QUERY, options, options.candidates)
    body = {**request.body([description.settings.schema]), "(scored by MaxSim at most)": request.reranked}
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    shutil.rmtree(REQUESTS, ignore_errors=True)
    REQUESTS.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            (REQUESTS / f"{case}.json").write_text(golden_request(case, Path(folder) / case), encoding="utf-8")
