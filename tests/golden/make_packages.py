"""Writes tests/golden/packages: the text files of packages of the main shapes. Run after a change that is meant, and read the
diff:

    cd tests && ../.venv/bin/python -m golden.make_packages
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from ready import ready_bundle
from vespa_bundles import small_bundle, with_lemur, with_thresholds

from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.package import Package, build_package
from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings, DenseSettings, OneVectorSettings

__all__ = ["CASES", "PACKAGES", "golden_package", "texts"]

PACKAGES = Path(__file__).resolve().parent / "packages"
_METADATA = MetadataSchema(
    {
        "kind": FieldType.STRING,
        "public": FieldType.BOOL,
        "ratio": FieldType.DOUBLE,
        "tags": FieldType.STRINGS,
        "year": FieldType.LONG,
    }
)
_EXACT = ("bm25", "exhaustive")
CASES = {
    "plain": AppSettings(dim=16, query_rows=8, embedder=False),
    "centroid": AppSettings(dim=16, query_rows=8, metadata=_METADATA, candidates=("centroid", "pooled", "bm25", "exhaustive")),
    "binary": AppSettings(dim=128, query_rows=32, codec="binary", candidates=("pooled",), schema="notes", search_threads=1),
    "cluster": AppSettings(
        dim=16,
        query_rows=8,
        embedder=False,
        cluster=ClusterSettings(
            config=("node1",), container=("node1", "node2"), content=("node1", "node2", "node3", "node4"), groups=2
        ),
    ),
    "cloud": AppSettings(
        dim=16,
        query_rows=8,
        embedder=False,
        candidates=_EXACT,
        cloud=CloudSettings(
            regions=("aws-us-east-1c",), content_nodes=(2, 4), read_tokens=("reader",), write_tokens=("feeder",)
        ),
    ),
    "chunks": AppSettings(
        dim=16,
        query_rows=8,
        embedder=False,
        layout="chunks",
        candidates=_EXACT,
        indexes={"notes": {"codec": "binary", "layout": "passages", "metadata": {"year": "long"}, "candidates": ["pooled"]}},
    ),
    "float32": AppSettings(dim=16, query_rows=8, embedder=False, codec="float32", candidates=("exhaustive",)),
    "residual": AppSettings(
        dim=16, query_rows=8, embedder=False, codec="residual", paged=True, candidates=("centroid", "token")
    ),
    "token": AppSettings(dim=16, query_rows=8, embedder=False, candidates=("token",)),
    "hybrid": AppSettings(
        dim=16,
        query_rows=8,
        embedder=False,
        candidates=("hybrid",),
        keep_rank_count=1000,
        drop_limits={"hybrid": {"first": 0.5, "second": 2.0, "global": 0.01}},
    ),
    "dense": AppSettings(
        dim=16,
        query_rows=8,
        embedder=False,
        candidates=("bm25+dense", "centroid", "dense", "hybrid"),
        dense={"dense": DenseSettings(24), "small": DenseSettings(16, cells="bits", links=8)},
        weights={"maxsim": 1.0, "bm25": 0.5, "dense": 1.0},
        fusion="sum",
        drop_limits={"dense": {"first": 0.2}},
        cloud=CloudSettings(regions=("aws-us-east-1c",)),
    ),
    "one-vector": AppSettings(
        dim=16,
        query_rows=8,
        embedder=False,
        candidates=("pooled", "bm25+pooled", "hybrid"),
        one_vector=OneVectorSettings("lemur", 8, "int8"),
        indexes={
            "halves": {"one_vector": {"encoding": "lemur", "dim": 8, "cells": "bfloat16"}, "candidates": ["pooled"]},
            "means": {"one_vector": {"cells": "int8"}, "candidates": ["pooled"]},
            "plain": {"one_vector": {"encoding": "mean"}, "candidates": ["pooled"]},
        },
        cloud=CloudSettings(regions=("aws-us-east-1c",)),
    ),
    "thresholds": AppSettings(
        dim=16, query_rows=8, embedder=False, codec="binary", thresholds=True, candidates=("exhaustive",)
    ),
    "paged": AppSettings(dim=16, query_rows=8, embedder=False, paged=True, candidates=("bm25", "exhaustive")),
    "explain": AppSettings(dim=16, query_rows=8, embedder=False, candidates=("centroid", "bm25")),
    "ready": AppSettings(dim=128, query_rows=32, embedder=False),
    "streaming": AppSettings(
        dim=16,
        query_rows=8,
        metadata=_METADATA,
        mode="streaming",
        group_field="kind",
        encoding="embedder",
        candidates=("exhaustive", "bm25"),
    ),
}


def golden_package(name: str, scratch: Path) -> Package:
    settings = CASES[name]
    if name == "ready":
        return build_package(ready_bundle(scratch / name, dim=settings.dim), settings)
    dense = {model: own.dim for model, own in settings.dense.items()}
    bundle = small_bundle(scratch / name, dim=settings.dim, trained=name == "centroid", dense=dense)
    if settings.one_vector.encoding == "lemur":
        bundle = with_lemur(bundle, settings.one_vector.dim)
    package = build_package(with_thresholds(bundle) if settings.thresholds else bundle, settings)
    return package.explained() if name == "explain" else package


def texts(package: Package) -> dict[str, str]:
    """The checksum of the bundle is not part of what is pinned: it changes with the bundle's format."""
    sha256 = package.description.bundle_sha256
    found = {name: _text(name, content) for name, content in package.files.items() if isinstance(content, bytes)}
    shown = {name: text.replace(sha256, "(checksum)").replace(sha256[:8], "checksum") for name, text in found.items()}
    return {name.replace(sha256[:8], "checksum"): text for name, text in shown.items()}


def _text(name: str, content: bytes) -> str:
    """Constants are pinned by their checksums."""
    if name.endswith(".tbf"):
        return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}\n"
    return content.decode()


if __name__ == "__main__":
    shutil.rmtree(PACKAGES, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            for name, text in texts(golden_package(case, Path(folder))).items():
                file = PACKAGES / case / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
