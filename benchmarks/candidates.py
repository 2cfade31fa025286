"""Candidates with one vector a passage, measured: every encoding, and MUVERA's, which is not shipped.

    python -m benchmarks.candidates [COLLECTION ...] [--quick] [--json]

Collections are those of vespa_collections.py; docs, scifact and cranfield by default. For each encoding: recall@10 of exact
MaxSim among so many candidates, compared one by one and as HNSW finds them for `pooled` (faiss, with the links and explore of
Vespa's defaults, int8 cells; lengths are made equal by one more dimension, as Vespa does for inner products; as many targets as
the strategy asks for), and the work of a query (colbert_vespa/evaluation/candidates.py).
`--encodings` names some of them; `centroid` is measured with the bundle's codebook.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.vespa_collections import open_collection
from colbert_vespa.evaluation.candidates import RERANKS, exact_best, measure_candidates, stored_cells
from colbert_vespa.evaluation.recall import RecallGoal
from late_interaction.array_types import Matrix, Vector
from late_interaction.one_vector import FitReport, OneVector
from late_interaction.one_vector.lemur import Lemur
from late_interaction.one_vector.mean import MeanVector
from vespa_app.candidates.pooled import hnsw_targets
from vespa_app.codecs import bundle_codebooks
from vespa_app.settings import AppSettings

__all__ = ["Fde", "main"]

LINKS, EXPLORE = 16, 200
FIT = 6_000  # passages that encodings are fitted to


@dataclass(frozen=True)
class Fde(OneVector):
    """MUVERA's fixed dimensional encoding (arXiv 2405.19504): each of `repetitions` cuts the space into 2^bits parts by random
    planes, in which a query's rows are summed up and a passage's averaged; an empty part has the passage's row that is nearest
    by the planes. Rows are projected to `inner` dimensions by random signs, the whole by a count sketch to `size`. centre:
    taken off before planes are compared."""

    bits: int
    repetitions: int
    inner: int
    size: int
    centre: Vector
    seed: int = 0
    name = "fde"
    about = "MUVERA's fixed dimensional encoding"
    normalized = False

    @classmethod
    def fit(cls, sample: Sequence[Matrix], *, dim: int = 0, seed: int = 0, progress: FitReport | None = None) -> Fde:
        raise NotImplementedError

    @classmethod
    def load(cls, path: str | Path) -> Fde:
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        raise NotImplementedError

    @property
    def sha256(self) -> str:
        return str(self)

    @property
    def rows_dim(self) -> int:
        return len(self.centre)

    @property
    def dim(self) -> int:
        return self.size

    @property
    def unit(self) -> float:
        return 1e-3

    def passages(self, rows: Sequence[Matrix]) -> Matrix:
        return self._encoded(rows, of_query=False)

    def query(self, rows: Matrix) -> Vector:
        vector: Vector = self._encoded([rows], of_query=True)[0]
        return vector

    def _encoded(self, passages: Sequence[Matrix], *, of_query: bool) -> Matrix:
        random, parts = np.random.default_rng(self.seed), 1 << self.bits
        whole, counts = np.concatenate(passages), np.array([len(rows) for rows in passages])
        owner, starts = np.repeat(np.arange(len(passages)), counts), np.concatenate([[0], np.cumsum(counts)[:-1]])
        apart = np.array([[(a ^ b).bit_count() for b in range(parts)] for a in range(parts)])
        out: Matrix = np.zeros((len(passages), self.size), np.float32)
        for _ in range(self.repetitions):
            planes = random.standard_normal((self.rows_dim, self.bits)).astype(np.float32)
            signs = np.where(random.random((self.rows_dim, self.inner)) < 0.5, -1, 1).astype(np.float32) / self.inner**0.5
            bucket, sign = random.integers(0, self.size, parts * self.inner), random.choice([-1, 1], parts * self.inner)
            projected = whole @ signs if self.inner < self.rows_dim else whole
            code = ((whole - self.centre) @ planes > 0) @ (1 << np.arange(self.bits))
            cells: Matrix = np.zeros((len(passages) * parts, projected.shape[1]), np.float32)
            np.add.at(cells, owner * parts + code, projected)
            if not of_query:
                count = np.bincount(owner * parts + code, minlength=len(cells))
                cells /= np.maximum(1, count)[:, None]
                far = apart[code] * 4096 + np.minimum(np.arange(len(whole)) - starts[owner], 4095)[:, None]
                nearest = np.minimum.reduceat(far, starts, axis=0) % 4096 + starts[:, None]
                empty = count.reshape(len(passages), parts) == 0
                cells.reshape(len(passages), parts, -1)[empty] = projected[nearest[empty]]
            flat = cells.reshape(len(passages), -1) * sign
            order = np.argsort(bucket, kind="stable")
            firsts = np.flatnonzero(np.diff(bucket[order], prepend=-1))
            out[:, bucket[order][firsts]] += np.add.reduceat(flat[:, order], firsts, axis=1)
        return out


def encodings_of(passages: Sequence[Matrix], wanted: Sequence[str]) -> dict[str, OneVector]:
    """By name, fitted to a sample."""
    random = np.random.default_rng(0)
    sample = [passages[place] for place in random.permutation(len(passages))[:FIT]]
    dim, centre = passages[0].shape[1], np.concatenate(sample).mean(axis=0)
    made: dict[str, Any] = {
        "mean": lambda: MeanVector(dim),
        "lemur 256": lambda: Lemur.fit(sample, dim=256),
        "lemur 512": lambda: Lemur.fit(sample, dim=512),
        "fde 4x10 512": lambda: Fde(4, 10, 8, 512, 0 * centre),
        "fde 4x10 1024": lambda: Fde(4, 10, 8, 1024, 0 * centre),
        "fde 4x10 1024, centred": lambda: Fde(4, 10, 8, 1024, centre),
        "fde 5x20 1024, centred": lambda: Fde(5, 20, 16, 1024, centre),
        "fde 6x20 2048, centred": lambda: Fde(6, 20, 16, 2048, centre),
    }
    return {name: make() for name, make in made.items() if not wanted or name in wanted}


def by_hnsw(encoding: OneVector, stored: Matrix, asked: Matrix, exact: Sequence[set[int]]) -> dict[int, tuple[float, float]]:
    """By number of candidates: recall@10 among the best that the graph finds, and vectors compared for each of its targets."""
    import faiss

    faiss.omp_set_num_threads(1)
    squares = np.einsum("ij,ij->i", stored, stored)
    longer = np.sqrt(np.maximum(0, squares.max() - squares))[:, None]
    graph = faiss.IndexHNSWFlat(stored.shape[1] + 1, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = EXPLORE
    graph.add(np.hstack([stored, longer]).astype(np.float32))
    found = {}
    queries = np.hstack([asked, np.zeros((len(asked), 1), np.float32)]).astype(np.float32)
    for count in RERANKS:
        targets = hnsw_targets(encoding, max(AppSettings.target_hits, count), count)
        graph.hnsw.efSearch = targets
        faiss.cvar.hnsw_stats.reset()
        places = graph.search(queries, min(targets, len(stored)))[1][:, :count]
        recall = np.mean([len(best.intersection(row.tolist())) / len(best) for best, row in zip(exact, places, strict=True)])
        found[count] = (float(recall), faiss.cvar.hnsw_stats.ndis / len(asked) / targets)
    return found


def measured(name: str, wanted: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """A row for each encoding and number of probes."""
    with open_collection(name, quick=quick) as collection:
        passages = [rows for _, block in collection.blocks() for rows in block if len(rows)]
        queries = [rows for _, rows in collection.queries if len(rows)]
        book = bundle_codebooks(collection.bundle, thresholds=False).codebook
    exact = exact_best(passages, queries, 10)
    start = time.perf_counter()
    encodings = encodings_of(passages, wanted)
    fitted = time.perf_counter() - start
    centroids = book if not wanted or "centroid" in wanted else None
    report = measure_candidates(passages, queries, RecallGoal(), encodings, centroids, known=exact)
    rows: dict[str, Any] = {}
    for way, points in report.ways.items():
        rows[way] = {"bytes": report.bytes[way], "recall": {p.rerank: p.recall for p in points}}
        rows[way]["work"] = {p.rerank: p.work for p in points}
    for way, encoding in encodings.items():
        if not isinstance(encoding, Fde):
            asked = np.stack([encoding.query(own) for own in queries])
            rows[way]["hnsw"] = by_hnsw(encoding, stored_cells(passages, encoding), asked, exact)
    return {"collection": name, "passages": len(passages), "queries": len(queries), "fit_s": fitted, "ways": rows}


def table(found: dict[str, Any]) -> str:
    """In Markdown: recall compared one by one, in brackets as HNSW finds them, and million multiply-adds with rerank 500."""
    head = ["candidates", "B", *(str(count) for count in RERANKS), "work at 500", "compared for each"]
    title = f"{found['collection']}, {found['passages']:,} passages, {found['queries']} queries"
    lines = [title, "", " | ".join(["", *head, ""])]
    lines.append("|" + "---|" * len(head))
    for way, row in found["ways"].items():
        graph = row.get("hnsw", {})
        cells = [
            f"{row['recall'][count]:.3f}" + (f" ({graph[count][0]:.3f})" if count in graph else "")
            for count in RERANKS
            if count in row["recall"]
        ]
        cells += [""] * (len(RERANKS) - len(cells))
        work, looked = row["work"].get(500), graph.get(500)
        last = [f"{work / 1e6:.0f}" if work else "", f"{looked[1]:.1f}" if looked else ""]
        lines.append(" | ".join(["", way, f"{row['bytes']:.0f}", *cells, *last, ""]))
    return "\n".join(line.strip() for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="*", default=["docs", "scifact", "cranfield"])
    parser.add_argument("--encodings", nargs="*", default=[], help="names of some ways; default: all")
    parser.add_argument("--quick", action="store_true", help="2,000 passages and 20 queries")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given = parser.parse_args(arguments)
    results = []
    for name in given.collections:
        results.append(measured(name, given.encodings, quick=given.quick))
        print(table(results[-1]), file=sys.stderr if given.json else sys.stdout, flush=True)
    if given.json:
        print(json.dumps({"collections": results}))


if __name__ == "__main__":
    main()
