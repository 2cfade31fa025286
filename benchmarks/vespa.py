"""Codecs and candidates on a real Vespa node: `python -m benchmarks.vespa [--quick] [--json]`.

Every codec is deployed with every candidate strategy, fed and asked. recall@10 is measured against the exact MaxSim of the
float32 vectors; latencies are Vespa's own search time, one query at a time on one thread, without the encoding of the query.
The node is the one of COLBERT_VESPA_URL and COLBERT_VESPA_CONFIG_URL; what is deployed there is replaced.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from benchmarks.node import CLUSTER, replace_application
from benchmarks.vespa_collections import Benched, open_collection
from colbert_vespa.evaluation.metrics import percentile
from feeder.targets import EncodedDocument
from feeder.targets.vespa import open_vespa
from late_interaction.bundle_cache import cache_folder
from late_interaction.documents import Passage
from late_interaction.maxsim import maxsim_many
from late_interaction.metadata import MetadataSchema
from late_interaction.metrics import overlap_at_k
from query import Client
from vespa_app.candidates import STRATEGIES
from vespa_app.package import default_settings

K = 10
FEWEST = 5
DATABASES = Path("/opt/vespa/var/db/vespa/search/cluster.content/n0/documents")
PROTON_CMD = "/opt/vespa/bin/vespa-proton-cmd"
# strategy, probes, rerank
ASKED = (
    ("exhaustive", 16, 10),
    *(("centroid", probes, rerank) for probes in (16, 32, 64) for rerank in (200, 500, 1000)),
    ("centroid", 32, 2000),
    ("pooled", 16, 500),
    ("pooled", 16, 2000),
    ("bm25", 16, 500),
    ("hybrid", 32, 500),
    ("token", 16, 200),
    ("token", 16, 1000),
)
HEAVY = "residual"  # decoding takes so long that only some settings are asked


@dataclass(frozen=True)
class Row:
    """recall: of the exact top 10. p50, p95: milliseconds in Vespa. queries: that were asked within the row's budget."""

    collection: str
    codec: str
    candidates: str
    probes: int
    rerank: int
    recall: float
    p50: float
    p95: float
    queries: int


@dataclass(frozen=True)
class Store:
    """What a codec takes: bytes of a passage's token vectors in memory, of all its attributes, and on disk; passages a
    second while feeding."""

    collection: str
    codec: str
    passages: int
    rows: int
    vector_bytes: float
    memory_bytes: float
    disk_bytes: float | None
    feed_rate: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2,000 passages and 20 queries of each collection")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    parser.add_argument("--collection", action="append", help="scifact, docs or cranfield; NAME:N for its first N passages")
    parser.add_argument("--codec", action="append", help="of float32, bfloat16, binary, residual")
    parser.add_argument("--budget", type=float, default=45.0, help="seconds for one row of the table")
    parser.add_argument("--token", action="store_true", help="also an HNSW graph over all token vectors: slow to feed")
    options = parser.parse_args()
    url, config_url = os.environ.get("COLBERT_VESPA_URL"), os.environ.get("COLBERT_VESPA_CONFIG_URL")
    if not url or not config_url:
        sys.exit("COLBERT_VESPA_URL and COLBERT_VESPA_CONFIG_URL name no Vespa node")
    rows: list[Row] = []
    stores: list[Store] = []
    for name in options.collection or ("scifact", "docs"):
        with open_collection(name, quick=options.quick) as collection:
            truth = exact_top(collection, quick=options.quick)
            for codec in options.codec or ("bfloat16", "binary", "residual", "float32"):
                bench = _Bench(collection, codec, url, config_url, truth, options.token, options.budget)
                stores.append(bench.prepare())
                say(str(stores[-1]))
                for row in bench.rows():
                    rows.append(row)
                    say(str(row))
    if options.json:
        print(json.dumps({"stores": [dataclasses.asdict(s) for s in stores], "rows": [dataclasses.asdict(r) for r in rows]}))
    else:
        print(tables(stores, rows))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def exact_top(collection: Benched, *, quick: bool) -> list[list[str]]:
    """Ids of the exact best 10 of each query, kept in the cache."""
    kept = cache_folder() / "benchmarks" / f"{collection.name}-{'quick-' if quick else ''}{collection.bundle.sha256[:12]}.json"
    if kept.is_file():
        found: list[list[str]] = json.loads(kept.read_text())
        return found
    ids = [document.id for document in collection.documents]
    scores: list[list[np.ndarray]] = [[] for _ in collection.queries]
    for _, vectors in collection.blocks():
        lengths = [len(rows) for rows in vectors]
        together = np.concatenate(vectors)
        for place, (_, Q) in enumerate(collection.queries):
            scores[place].append(maxsim_many(Q, together, lengths))
    best = [np.argsort(-np.concatenate(parts), kind="stable")[:K] for parts in scores]
    found = [[ids[place] for place in order.tolist()] for order in best]
    kept.write_text(json.dumps(found))
    return found


class _Bench:
    def __init__(
        self,
        collection: Benched,
        codec: str,
        url: str,
        config_url: str,
        truth: Sequence[Sequence[str]],
        token: bool,
        budget: float,
    ) -> None:
        """budget: seconds for one row of the table, which has FEWEST queries at least."""
        self.budget = budget
        self.collection = collection
        self.codec = codec
        self.url = url
        self.config_url = config_url
        self.truth = truth
        strategies = tuple(name for name in STRATEGIES if name != "dense" and (token or name != "token"))
        chosen = default_settings(collection.bundle, MetadataSchema({}), codec=codec, candidates=strategies)
        # a schema of its own: Vespa does not turn one field type into another on the way
        self.settings = dataclasses.replace(
            chosen, schema=f"{collection.name.replace(':', '_')}_{codec}", search_threads=1, embedder=False, jvm_heap_mb=1024,
            cluster=CLUSTER,
        )  # fmt: skip

    def prepare(self) -> Store:
        bundle = self.collection.bundle
        replace_application(bundle, self.settings, self.url, self.config_url)
        target = open_vespa(self.url, bundle)
        rows, seconds = 0, 0.0
        for documents, vectors in self.collection.blocks():
            rows += sum(map(len, vectors))
            bare = [dataclasses.replace(document, metadata={}) for document in documents]
            start = time.perf_counter()
            target.put([EncodedDocument(d, (Passage.of(d),), (found,)) for d, found in zip(bare, vectors, strict=True)])
            failures = [outcome.failure for outcome in target.settled(wait=True) if outcome.failure]
            seconds += time.perf_counter() - start
            if failures:
                sys.exit(str(failures[0]))
        target.close()
        count = len(self.collection.documents)
        memory = self._memory()
        mine = sum(memory.get(name, 0) for name in ("vectors", "codes", "token_bits"))
        disk = self._disk()
        return Store(
            self.collection.name, self.codec, count, rows, mine / count, sum(memory.values()) / count,
            None if disk is None else disk / count, count / seconds,
        )  # fmt: skip

    def _memory(self) -> dict[str, int]:
        """Bytes in use by each attribute, as the search node says."""
        place = "tenant/default/application/default/environment/prod/region/default/instance/default"
        services = httpx.get(f"{self.config_url}/application/v2/{place}/serviceconverge").json()["services"]
        node = next(service for service in services if service["type"] == "searchnode")
        root = f"http://{node['host']}:{node['port']}/state/v1/custom/component/documentdb/{self.settings.schema}"
        names = httpx.get(f"{root}/subdb/ready/attribute").json()
        return {
            name: int(httpx.get(f"{root}/subdb/ready/attribute/{name}").json()["status"]["memoryUsage"]["usedBytes"])
            for name in names
        }

    def _disk(self) -> int | None:
        """Bytes of the flushed document database, where the node's disk is this machine's."""
        folder = DATABASES / self.settings.schema
        if not folder.is_dir() or not Path(PROTON_CMD).is_file():
            return None
        subprocess.run([PROTON_CMD, "--local", "triggerFlush"], capture_output=True, check=False, timeout=600)
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def rows(self) -> Iterator[Row]:
        with Client(f"{self.url}#{self.settings.schema}", self.collection.bundle) as client:
            for name in self.settings.candidates:
                for row in range(FEWEST):  # the container compiles what it meets for the first time
                    self._ask(client, name, 16, 100, row)
            for name, probes, rerank in ASKED:
                heavy = self.codec == HEAVY and rerank > 500
                if name in self.settings.candidates and rerank <= len(self.collection.documents) and not heavy:
                    yield self._row(client, name, probes, rerank)

    def _row(self, client: Client, name: str, probes: int, rerank: int) -> Row:
        recalls, times = [], []
        start = time.perf_counter()
        for place in range(len(self.truth)):
            if place >= FEWEST and time.perf_counter() - start > self.budget:
                break
            ids, took = self._ask(client, name, probes, rerank, place)
            recalls.append(overlap_at_k(ids, self.truth[place], K))
            times.append(took)
        return Row(
            self.collection.name, self.codec, name, probes, rerank, float(np.mean(recalls)),
            percentile(times, 0.5), percentile(times, 0.95), len(times),
        )  # fmt: skip

    def _ask(self, client: Client, name: str, probes: int, rerank: int, place: int) -> tuple[list[str], float]:
        text, Q = self.collection.queries[place]
        query = text if name in ("bm25", "hybrid") else Q
        result = client.search(query, K, candidates=name, probes=probes, rerank=rerank, timeout=100.0)
        return [hit.id for hit in result.hits], result.timings_ms["vespa_search"]


def tables(stores: Sequence[Store], rows: Sequence[Row]) -> str:
    """Two Markdown tables."""
    lines = ["| collection | codec | B/passage of vectors | B/passage in memory | B/passage on disk | passages/s fed |"]
    lines.append("|---|---|---|---|---|---|")
    for store in stores:
        disk = "-" if store.disk_bytes is None else f"{store.disk_bytes:,.0f}"
        lines.append(
            f"| {store.collection} | {store.codec} | {store.vector_bytes:,.0f} | {store.memory_bytes:,.0f} | {disk} "
            f"| {store.feed_rate:.0f} |"
        )
    lines += [
        "",
        "| collection | codec | candidates | rerank | recall@10 | p50 ms | p95 ms | queries |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = f"{row.candidates} M={row.probes}" if row.candidates in ("centroid", "hybrid") else row.candidates
        lines.append(
            f"| {row.collection} | {row.codec} | {name} | {row.rerank} | {row.recall:.3f} | {row.p50:.0f} | {row.p95:.0f} "
            f"| {row.queries} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
