"""Late interaction beside BM25 and dense vectors on judged collections: tables of the documentation.

    python -m benchmarks.when_to_use [--quick] [--json] [--collection NAME]... [--plots DIR] [--keep DIR]
        [--work DIR] [--queries 300] [--page docs/explanation/when-to-use.md]

Each collection is exported, fed and searched as a user would do it: a bundle with token vectors and a dense model, one local
index of it, and the table of `evaluate --compare` with 200 candidates reranked. The dense model is MiniLM as it was trained;
late interaction is the same MiniLM with a projection that was fitted to the collection's texts, never trained. Below that the
same search over smaller token vectors, and the cost of a cross-encoder of MiniLM's size as the last stage: there is no trained
one on the package index, so its quality is left out. Bytes are of what a search reads, without texts. Latency is of a
search of 100 hits, encoding of the query left out, one query at a time; it is shown where the machine did nothing else.

--work: folder of bundles and indexes, made once. --keep: folder of results; what it has is not measured again. --plots: also
measure the trade-offs, over 100 queries where there are more than 2,000 passages. --queries: of a collection at most so many, a
seeded sample. --quick: cranfield alone, 50 queries.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.vespa_collections import COLLECTIONS, Benched, open_collection
from colbert_vespa.evaluation.collection import read_collection
from colbert_vespa.evaluation.evaluating import EvaluationSettings, Judged, asked_run
from colbert_vespa.evaluation.metrics import Metric, percentile
from colbert_vespa.evaluation.runs import rankings_of
from colbert_vespa.evaluation.tradeoffs import built_index, measure_tradeoffs, plot_tradeoffs
from colbert_vespa.evaluation.ways import MAXSIM, MeasuredWay, WaysReport, measure_rankings, measure_ways, with_vectors
from exporter import ExportOptions, export, export_cross_encoder
from exporter.hub import minilm_folder
from feeder import FeedOptions, feed
from late_interaction.bundle import DENSE, Bundle
from late_interaction.bundle_cache import cache_folder
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.plaid import Storage
from late_interaction.plaid.index import LocalIndex
from late_interaction.vector_cache import CachedEncoder
from query import Client

METRICS = (Metric("ndcg", 10), Metric("map", 100), Metric("recall", 100))
COLUMNS = {"ndcg_at_10": "nDCG@10", "map_at_100": "MAP@100", "recall_at_100": "recall@100"}
SINGLES = ("bm25", "dense", MAXSIM)
DEPTH, RERANK = 100, 200
CROSSED, CROSSED_QUERIES = 50, 5  # passages that a cross-encoder reads, and queries that it is timed on
QUICK_QUERIES = 50
LARGE, LARGE_QUERIES = 2_000, 100  # passages of a collection whose trade-offs have fewer queries
MARKS = ("<!-- measured by benchmarks/when_to_use.py -->", "<!-- end of what was measured -->")
SMALLER = (
    ("2 bits", Storage("residual", 2), 1),
    ("2 bits, pooled by 2", Storage("residual", 2), 2),
    ("binary", Storage("binary"), 1),
)


@dataclass(frozen=True)
class Made:
    """A collection with its judged queries, and its local index of token vectors of 4 bits and dense vectors."""

    benched: Benched
    judged: Judged
    index: Path


def made(name: str, work: Path, queries: int | None) -> Made:
    """Exports and feeds what is not in the folder `work` yet."""
    benched = open_collection(name)
    read = read_collection(COLLECTIONS[name].data)
    judged = Judged.of(name, benched.documents, read.queries, read.qrels, queries)
    bundle, index = work / f"{name}.bundle", work / f"{name}.index"
    if not bundle.is_dir():
        export(benched.bundle.path, bundle, ExportOptions(dense={DENSE: minilm_folder()}, quantize=("int8",)))
    if not index.is_dir():
        opened = Bundle.open(bundle)
        encoder = CachedEncoder(Encoder(opened, precision="int8"), benched.cache)
        part = index.with_suffix(".part")
        feed(benched.documents, FeedOptions(to=part, bundle=opened, encoder=encoder, resume=True, journal=work / f"{name}.log"))
        part.rename(index)
    return Made(benched, judged, index)


def bytes_by_score(index: Path, passages: int) -> dict[str, float]:
    """Of a passage, for each score."""
    snapshot = LocalIndex.open(index).snapshot
    words = sum(
        entry.bytes
        for segment in snapshot.version.segments
        for name, entry in segment.files.items()
        if name.startswith("words_")
    )
    sizes = {"bm25": words, "dense": snapshot.dense_bytes(DENSE), MAXSIM: snapshot.stored_bytes()}
    return {name: size / passages for name, size in sizes.items()}


def measure(name: str, work: Path, *, queries: int | None, plots: Path | None) -> dict[str, Any]:
    source = made(name, work, queries)
    benched, judged = source.benched, source.judged
    sizes = bytes_by_score(source.index, len(judged.documents))
    with Client(source.index) as client:
        source = replace(source, judged=with_vectors(client, judged))
        report = measure_ways(client, judged, EvaluationSettings(rerank=RERANK))
        crossed = crossed_ratio(client, judged, work)
    rows = [row_of(row, sum(sizes[score] for score in row.scores)) for row in report.rows]
    rows += [smaller_row(source, report, *how) for how in SMALLER]
    if plots is not None:
        large = len(judged.documents) > LARGE and len(judged.queries) > LARGE_QUERIES
        read = read_collection(COLLECTIONS[name].data)
        asked = Judged.of(name, benched.documents, read.queries, read.qrels, LARGE_QUERIES) if large else judged
        plots.mkdir(parents=True, exist_ok=True)
        plot_tradeoffs(measure_tradeoffs(benched.encoder, asked), plots / f"tradeoffs-{name}.svg")
    tokens = np.mean([len(D) for D in benched.encoder.encode_documents(texts_of(benched)[:200])])
    return {
        "collection": name, "passages": report.passages, "queries": report.queries, "tokens_per_passage": float(tokens),
        "measured": time.strftime("%Y-%m-%d"), "load": os.getloadavg()[2], "rows": rows, "cross_encoder_ratio": crossed,
        "fitted": None if report.fitted is None else report.fitted.to_json(),
    }  # fmt: skip


def texts_of(benched: Benched) -> list[str]:
    return [passage_text(document.title, document.text) for document in benched.documents]


def row_of(row: MeasuredWay, size: float, name: str = "") -> dict[str, Any]:
    """p: of nDCG@10 to each single score, by randomisation."""
    chances = {other: found[METRICS[0].key].randomisation for other, found in row.differences.items()}
    return {
        "way": name or row.name, "single": row.single, "fused": not row.single and "->" not in row.name, **row.metrics,
        "p": chances, "bytes_per_passage": size, "p50_ms": row.latency_ms["p50"],
    }  # fmt: skip


def smaller_row(source: Made, report: WaysReport, label: str, storage: Storage, factor: int) -> dict[str, Any]:
    """Candidates centroid over token vectors that are stored otherwise."""
    benched, judged = source.benched, source.judged
    singles = {name: report.rankings[name] for name in SINGLES if name in report.rankings}
    with tempfile.TemporaryDirectory() as scratch:
        index, _ = built_index(Path(scratch) / "index", benched.encoder, judged.documents, storage, factor)
        size = index.bytes_per_token * index.token_vectors / len(judged.documents)
        with Client(index.path) as client:
            how = EvaluationSettings(candidates="centroid", rerank=RERANK)
            asked = asked_run(client, judged, DEPTH, how, lambda *_: None, first=DEPTH)
    name = f"centroid -> {MAXSIM}, {label}"
    return row_of(measure_rankings(name, (MAXSIM,), rankings_of(asked.run), singles, asked.seconds, judged, METRICS), size)


def crossed_ratio(client: Client, judged: Judged, work: Path) -> float:
    """Time that a cross-encoder of MiniLM's size adds to a search, over that of the search, p50. Its head has random weights:
    cost is all that counts."""
    folder = work / "cross-encoder"
    if not folder.is_dir():
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.manual_seed(13)
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = str(minilm_folder())
            AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=1).save_pretrained(scratch)
            AutoTokenizer.from_pretrained(checkpoint).save_pretrained(scratch)
            export_cross_encoder(scratch, folder, ExportOptions(quantize=("int8",)))
    ratios = []
    for query in judged.queries[:CROSSED_QUERIES]:
        start = time.perf_counter()
        client.search(query.text, 10, candidates="bm25+dense", rerank=RERANK)
        plain = time.perf_counter()
        found = client.search(
            query.text, 10, candidates="bm25+dense", rerank=RERANK, rerank_with=folder, rerank_with_top=CROSSED, timeout=600
        )
        if not found.reranked_with:
            raise RuntimeError("; ".join(found.notes))
        ratios.append((time.perf_counter() - plain) / (plain - start) - 1)
    return percentile(ratios, 0.5)


def findings(result: dict[str, Any]) -> list[str]:
    """Whether the best fusion is above every single score, and what dense candidates keep of MaxSim over everything."""
    rows = {row["way"]: row for row in result["rows"]}
    best = max((row for row in result["rows"] if row["fused"]), key=lambda row: row["ndcg_at_10"])
    others = "; ".join(
        f"{best['ndcg_at_10'] - rows[name]['ndcg_at_10']:+.3f} to {name} (p {best['p'][name]:.4f})" for name in SINGLES
    )
    kept = rows[f"dense -> {MAXSIM}"]["ndcg_at_10"] / rows[MAXSIM]["ndcg_at_10"]
    lines = [
        f"Best fusion: {best['way']}, nDCG@10 {others}.",
        f"`dense -> {MAXSIM}` has {kept:.3f} of the nDCG@10 of `{MAXSIM}`.",
        f"A cross-encoder over the best {CROSSED} takes {result['cross_encoder_ratio']:.0f} times the search before it.",
    ]
    if result["fitted"] is not None:
        way = result["fitted"]["fitted"]
        weights = ", ".join(f"{name} {weight:g}" for name, weight in way["weights"].items())
        lines.insert(1, f"Weights fitted to all queries: {way['fusion']}, {weights}.")
    return lines


def table(result: dict[str, Any]) -> str:
    """Markdown, as the page has it; the best of each measure is bold. Milliseconds only where the machine was idle."""
    timed = result["load"] < (os.cpu_count() or 1)
    head = (
        f"{result['collection']}, {result['passages']:,} passages of {result['tokens_per_passage']:.0f} token vectors, "
        f"{result['queries']:,} queries ({result['measured']}):\n"
    )
    names = [*COLUMNS.values(), *(f"p to {name}" for name in SINGLES), "B a passage", *(["p50 ms"] if timed else [])]
    lines = [head, f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    most = {key: max(row[key] for row in result["rows"]) for key in COLUMNS}
    for row in result["rows"]:
        quality = [f"**{row[key]:.3f}**" if row[key] == most[key] else f"{row[key]:.3f}" for key in COLUMNS]
        chances = [f"{row['p'][name]:.3f}" if row["p"].get(name) is not None else "" for name in SINGLES]
        costs = [f"{row['bytes_per_passage']:,.0f}", *([f"{row['p50_ms']:.1f}"] if timed else [])]
        cells = [f"`{row['way']}`", *quality, *chances, *costs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", " ".join(findings(result))])


def write_page(page: Path, results: Sequence[dict[str, Any]], plots: Path, queries: int | None) -> None:
    """Replaces what is between the marks."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    parts = [f"`python -m benchmarks.when_to_use{f' --queries {queries}' if queries else ''}`:"]
    for result in results:
        parts.append(table(result))
        plot = plots / f"tradeoffs-{result['collection']}.svg"
        if plot.is_file():
            parts.append(f"![Trade-offs on {result['collection']}]({Path(os.path.relpath(plot, page.parent)).as_posix()})")
    page.write_text("\n\n".join([before + MARKS[0], *parts, MARKS[1] + after]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="cranfield, fewer queries")
    parser.add_argument("--queries", type=int, help="of each collection at most so many")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on one line")
    parser.add_argument("--collection", action="append", choices=list(COLLECTIONS), help="default: the three that are judged")
    parser.add_argument("--page", type=Path, help="put the tables between this page's marks")
    parser.add_argument("--plots", type=Path, help="folder that gets plots of the trade-offs")
    parser.add_argument("--keep", type=Path, help="folder of results: what it has is not measured again")
    parser.add_argument("--work", type=Path, default=cache_folder() / "benchmarks" / "when-to-use", help="bundles and indexes")
    arguments = parser.parse_args()
    out = sys.stderr if arguments.json else sys.stdout
    names = arguments.collection or (["cranfield"] if arguments.quick else ["cranfield", "scifact", "medquad-test"])
    arguments.work.mkdir(parents=True, exist_ok=True)
    queries = QUICK_QUERIES if arguments.quick else arguments.queries
    results = []
    for name in names:
        kept = None if arguments.keep is None else arguments.keep / f"{name}.json"
        if kept is None or not kept.exists():
            results.append(measure(name, arguments.work, queries=queries, plots=arguments.plots))
        else:
            results.append(json.loads(kept.read_text(encoding="utf-8")))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(results[-1]), encoding="utf-8")
        print(table(results[-1]) + "\n", file=out, flush=True)
    if arguments.page:
        write_page(arguments.page, results, arguments.plots or Path("docs/images"), queries)
    if arguments.json:
        print(json.dumps({"collections": results}))


if __name__ == "__main__":
    main()
