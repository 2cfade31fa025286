"""Late interaction beside BM25, dense vectors and cross-encoders on judged collections: a table of the documentation.

    python -m benchmarks.when_to_use [--quick] [--json] [--collection NAME]... [--plots DIR]
        [--page docs/explanation/when-to-use.md]
        [--keep DIR]

Quality is against the judgements; bytes are of what a search reads (no texts); build is encoding of the whole corpus, from the
rate over a sample, plus making the index; latency is of a query of text, encoding included, one query at a time. The dense
model is MiniLM with its own mean pooling and exact search in float32; late interaction is the same MiniLM with a projection,
untrained. No cross-encoder can be had offline: its cost is measured with a model of that size (MiniLM over query and passage
together), and its quality is left out. --quick: cranfield alone, 50 queries, and fewer trade-offs. A collection of more than
2,000 passages has fewer trade-offs in any case, over 100 queries.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.vespa_collections import DATA, open_collection
from colbert_vespa.cli.demo import minilm_folder
from colbert_vespa.evaluation.baselines import Hits, dense_run, fused_run
from colbert_vespa.evaluation.collection import CollectionQuery, read_collection
from colbert_vespa.evaluation.evaluating import Judged
from colbert_vespa.evaluation.metrics import Metric, means, percentile
from colbert_vespa.evaluation.runs import rankings_of
from colbert_vespa.evaluation.significance import paired
from colbert_vespa.evaluation.tradeoffs import built_index, measure_tradeoffs, plot_tradeoffs
from exporter.torch_dense import TorchDense
from late_interaction.bm25 import Bm25
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.plaid import Storage
from query import Client

METRICS = (Metric("ndcg", 10), Metric("map", 100), Metric("recall", 100))
DEPTH = 100
RATE_SAMPLE = 64  # texts that a rate of encoding is measured on
RERANKED = 50  # passages that a cross-encoder is given
QUICK_QUERIES = 50
LARGE, LARGE_QUERIES = 2_000, 100  # passages of a collection that has fewer trade-offs, over so many queries
MARKS = ("<!-- measured by benchmarks/when_to_use.py -->", "<!-- end of what was measured -->")


@dataclass(frozen=True)
class Row:
    """One way to search. p: of nDCG@10 against late interaction by randomisation. None: not measured."""

    way: str
    ndcg_at_10: float | None
    map_at_100: float | None
    recall_at_100: float | None
    p: float | None
    bytes_per_passage: float | None
    build_s: float | None
    p50_ms: float
    p95_ms: float


def timed(queries: Sequence[CollectionQuery], search: Callable[[str], list[tuple[str, float]]]) -> tuple[Hits, list[float]]:
    search(queries[0].text)
    run, seconds = {}, []
    for query in queries:
        start = time.perf_counter()
        run[query.id] = search(query.text)
        seconds.append(time.perf_counter() - start)
    return run, seconds


def seconds_for_all(texts: Sequence[str], encode: Callable[[Sequence[str]], object]) -> float:
    """Of encoding all texts, from the rate over a spread sample."""
    sample = texts[:: max(1, len(texts) // RATE_SAMPLE)][:RATE_SAMPLE]
    encode(sample[:4])
    start = time.perf_counter()
    encode(sample)
    return (time.perf_counter() - start) * len(texts) / len(sample)


def bm25_row(judged: Judged, texts: Sequence[str]) -> tuple[Hits, list[float], float, float]:
    start = time.perf_counter()
    keyword = Bm25([d.id for d in judged.documents], texts)
    build = time.perf_counter() - start
    run, seconds = timed(judged.queries, lambda text: keyword.search(text, DEPTH))
    return run, seconds, keyword.index_bytes / len(texts), build


def dense_row(judged: Judged, texts: Sequence[str]) -> tuple[Hits, list[float], float, float]:
    model = TorchDense(minilm_folder())
    build = seconds_for_all(texts, model.encode_documents)
    D = model.encode_documents(texts)

    def search(text: str) -> list[tuple[str, float]]:
        return dense_run(judged.documents, [CollectionQuery("q", text)], D, model.encode_queries([text]), DEPTH)["q"]

    run, seconds = timed(judged.queries, search)
    return run, seconds, D.nbytes / len(texts), build


def cross_row(judged: Judged, texts: Sequence[str]) -> list[float]:
    """Seconds that a cross-encoder of MiniLM's size takes over RERANKED passages for each of a few queries."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(str(minilm_folder())),
        AutoModel.from_pretrained(str(minilm_folder())).eval(),
    )
    passages = list(texts[:: max(1, len(texts) // RERANKED)][:RERANKED])
    seconds = []
    for query in judged.queries[:5]:
        start = time.perf_counter()
        pairs = tokenizer(
            [query.text] * len(passages), passages, padding=True, truncation=True, max_length=512, return_tensors="pt"
        )
        with torch.inference_mode():
            model(**pairs)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(name: str, *, quick: bool, plots: Path) -> dict[str, object]:
    benched = open_collection(name)
    read = read_collection(DATA / name)
    judged = Judged.of(name, benched.documents, read.queries, read.qrels, QUICK_QUERIES if quick else None)
    texts = [passage_text(d.title, d.text) for d in judged.documents]
    ids = [query.id for query in judged.queries]
    encode_s = seconds_for_all(texts, Encoder(benched.bundle, precision="int8").encode_documents)
    found: dict[str, tuple[Hits, list[float], float, float]] = {
        "BM25": bm25_row(judged, texts), "dense (MiniLM, float32)": dense_row(judged, texts),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        for label, storage, factor in LATE:
            folder = Path(scratch) / label
            index, seconds = built_index(folder, benched.encoder, judged.documents, storage, factor)
            size = index.bytes_per_token * index.token_vectors / len(texts)
            with Client(str(folder)) as client:
                for candidates in ("centroid", "bm25") if label == LATE[0][0] else ("centroid",):
                    way = label if candidates == "centroid" else f"BM25, reranked by {label}"
                    run, taken = timed(judged.queries, lambda text: hits(client, text, candidates))  # noqa: B023
                    found[way] = run, taken, size, encode_s + seconds
    late = found[LATE[0][0]]
    for other, way in (("BM25", "BM25 + late interaction"), ("dense (MiniLM, float32)", "dense + late interaction")):
        run, taken, size, build = found[other]
        both = [a + b for a, b in zip(taken, late[1], strict=True)]
        found[way] = fused_run(late[0], run, DEPTH), both, size + late[2], build + late[3]
    dense, words = found["dense (MiniLM, float32)"], found["BM25"]
    both = [a + b for a, b in zip(dense[1], words[1], strict=True)]
    found["BM25 + dense"] = fused_run(dense[0], words[0], DEPTH), both, dense[2] + words[2], dense[3] + words[3]
    ours = METRICS[0].values(rankings_of(late[0]), judged.qrels, ids)
    rows = []
    for way, (run, taken, size, build) in found.items():
        rankings = rankings_of(run)
        values = means(METRICS, rankings, judged.qrels, ids)
        p = None if run is late[0] else paired(METRICS[0].values(rankings, judged.qrels, ids), ours).randomisation
        p50, p95 = (1000 * percentile(taken, share) for share in (0.5, 0.95))
        rows.append(Row(way, values["ndcg_at_10"], values["map_at_100"], values["recall_at_100"], p, size, build, p50, p95))
    crossed = cross_row(judged, texts)
    rows.append(Row(f"cross-encoder over {RERANKED} passages, cost alone", None, None, None, None, None, None,
                    1000 * statistics.median(crossed), 1000 * max(crossed)))  # fmt: skip
    few = {
        "storages": (Storage("float32"), Storage("residual", 4), Storage("residual", 2), Storage("binary")),
        "poolings": (1, 2),
    }
    large = len(texts) > LARGE
    asked = Judged.of(name, benched.documents, read.queries, read.qrels, LARGE_QUERIES) if large and not quick else judged
    tradeoffs = measure_tradeoffs(benched.encoder, asked, **few if quick or large else {})  # type: ignore[arg-type]
    plots.mkdir(parents=True, exist_ok=True)
    plot_tradeoffs(tradeoffs, plots / f"tradeoffs-{name}.svg")
    return {"collection": name, "passages": len(texts), "queries": len(ids), "rows": [asdict(row) for row in rows],
            "tokens_per_passage": float(np.mean([len(D) for D in benched.encoder.encode_documents(texts[:200])])),
            "measured": f"{time.strftime('%Y-%m-%d')}, load {load()}", "tradeoffs": tradeoffs.to_json()["points"]}  # fmt: skip


LATE = (
    ("late interaction, 4 bits", Storage("residual", 4), 1),
    ("late interaction, 2 bits", Storage("residual", 2), 1),
    ("late interaction, 2 bits, pooled by 2", Storage("residual", 2), 2),
    ("late interaction, binary", Storage("binary"), 1),
)


def hits(client: Client, text: str, candidates: str) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in client.search(text, DEPTH, candidates=candidates).hits]


def table(result: dict[str, object]) -> str:
    """Markdown, as the page has it."""
    head = (
        f"{result['collection']}, {result['passages']:,} passages of {result['tokens_per_passage']:.0f} token vectors, "
        f"{result['queries']} queries ({result['measured']}):\n\n"
        "| | nDCG@10 | p | MAP@100 | recall@100 | B a passage | build s | p50 / p95 ms |\n|---|---|---|---|---|---|---|---|"
    )
    lines = []
    for row in result["rows"]:  # type: ignore[attr-defined]
        quality = [_shown(row[key], ".3f") for key in ("ndcg_at_10", "p", "map_at_100", "recall_at_100")]
        costs = [_shown(row["bytes_per_passage"], ",.0f"), _shown(row["build_s"], ".1f")]
        cells = " | ".join(quality + costs)
        lines.append(f"| {row['way']} | {cells} | {row['p50_ms']:.1f} / {row['p95_ms']:.1f} |")
    return "\n".join([head, *lines])


def write_page(page: Path, results: Sequence[dict[str, object]], plots: Path, *, quick: bool) -> None:
    """Replaces what is between the marks."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    how = f"`python -m benchmarks.when_to_use{' --quick' if quick else ''}`:"
    folder = Path(os.path.relpath(plots, page.parent))
    parts = [how]
    for result in results:
        name = f"tradeoffs-{result['collection']}.svg"
        parts += [table(result), f"![Trade-offs on {result['collection']}]({folder / name})"]
    page.write_text("\n\n".join([before + MARKS[0], *parts, MARKS[1] + after]), encoding="utf-8")


def load() -> str:
    """Of the last 15 minutes, and the cores: what milliseconds are worth."""
    return f"{os.getloadavg()[2]:.1f} on {os.cpu_count()} cores"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="cranfield, fewer queries and trade-offs")
    parser.add_argument("--json", action="store_true", help="end with one JSON object on one line")
    parser.add_argument("--collection", action="append", help="cranfield or scifact; default: both")
    parser.add_argument("--page", type=Path, help="put the tables between this page's marks")
    parser.add_argument("--plots", type=Path, default=Path("docs/images"), help="folder of the plots")
    parser.add_argument("--keep", type=Path, help="folder of results: what it has is not measured again")
    arguments = parser.parse_args()
    out = sys.stderr if arguments.json else sys.stdout
    names = arguments.collection or (["cranfield"] if arguments.quick else ["scifact", "cranfield"])
    results = []
    for name in names:
        kept = None if arguments.keep is None else arguments.keep / f"{name}.json"
        if kept is None or not kept.exists():
            results.append(measure(name, quick=arguments.quick, plots=arguments.plots))
        else:
            results.append(json.loads(kept.read_text(encoding="utf-8")))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(results[-1]), encoding="utf-8")
        print(table(results[-1]) + "\n", file=out, flush=True)
    if arguments.page:
        write_page(arguments.page, results, arguments.plots, quick=arguments.quick)
    if arguments.json:
        print(json.dumps({"collections": results}))


if __name__ == "__main__":
    main()
