"""`demo`: export, package, index, searches and a report on real documents, with the local engine."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.exporting import make_bundle
from colbert_vespa.cli.feed_view import feed_view
from colbert_vespa.cli.stdlib_docs import first_sentence, stdlib_documents
from colbert_vespa.evaluation.collection import CollectionQuery, read_collection
from colbert_vespa.evaluation.evaluating import Evaluation, Judged, evaluate
from exporter import ExportOptions
from exporter.hub import minilm_folder
from feeder import FeedOptions, FeedSummary, start_feed
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import register_bundle
from late_interaction.documents import Document, passage_text
from late_interaction.encoder import Encoder
from late_interaction.files import atomic_write, check_folder, claim_folder, is_claimed, remove_folder
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import open_index
from late_interaction.plaid.shards.layout import is_index_folder
from late_interaction.vector_cache import CachedEncoder, VectorCache
from query import Client
from vespa_app import build_package, check_package, default_settings
from vespa_app.deploying.targets import start_command

__all__ = ["run_demo"]

SEED = 7
SAMPLE = 2000
KNOWN_ITEMS = 400
QUESTIONS: tuple[tuple[str, dict[str, object] | None], ...] = (
    ("How do I parse command line options?", None),
    ("wait until a group of threads has finished", None),
    ("find the most common elements of a list", None),
    ("make a temporary directory that cleans up after itself", None),
    ("remove a file", {"module": "pathlib"}),
)


def run_demo(out: Output, folder: Path, *, model: str | None, collection: Path | None) -> None:
    """Write bundle, package, app.toml and index below `folder`, and print the report.

    Raises:
        UsageError: If `folder` is neither new, nor empty, nor the folder of an earlier demo.
    """
    check_folder(folder, owned=_is_of_a_demo)
    start = time.perf_counter()
    judged = None
    if collection is None:
        out.heading("1. Documents: the Python standard library of this machine")
        documents = list(stdlib_documents())
        source = folder / "documents.jsonl"
    else:
        out.heading(f"1. Documents: {collection}")
        read = read_collection(collection)
        documents = list(read.corpus)
        source = collection
        judged = Judged.of(read.name, documents, read.queries, read.qrels)
    texts = [passage_text(d.title, d.text) for d in documents if not d.blank]
    out.say(f"{len(documents)} documents")
    claim_folder(folder, "demo")
    if judged is None:
        _write_documents(source, documents)
    remove_folder(folder / "index", owned=is_index_folder)

    out.heading("2. Checkpoint to bundle")
    sample = random.Random(SEED).sample(texts, min(SAMPLE, len(texts)))
    options = ExportOptions(quantize=("int8",), sample=sample)
    bundle, _ = make_bundle(out, model or minilm_folder(), folder / "bundle", options)
    register_bundle(bundle)

    encoder = Encoder(bundle)
    with tempfile.TemporaryDirectory(prefix="vectors-", dir=folder) as scratch:
        cache = VectorCache(Path(scratch) / "vectors", encoder.dim)
        try:
            _index_and_answer(out, folder, bundle, CachedEncoder(encoder, cache), documents, judged, source, start)
        finally:
            cache.close()


def _is_of_a_demo(folder: Path) -> bool:
    return is_claimed(folder, "demo")


def _write_documents(path: Path, documents: Sequence[Document]) -> None:
    lines = (json.dumps({"id": d.id, "title": d.title, "text": d.text, "metadata": dict(d.metadata)}) for d in documents)
    atomic_write(path, ("\n".join(lines) + "\n").encode())


def _index_and_answer(
    out: Output,
    folder: Path,
    bundle: Bundle,
    encoder: CachedEncoder,
    documents: list[Document],
    judged: Judged | None,
    source: Path,
    start: float,
) -> None:
    out.heading("3. Local index")
    summary, schema = _feed(documents, folder / "index", bundle, encoder)
    out.feed_summary(summary)

    out.heading("4. Vespa application package")
    settings = default_settings(bundle, schema)
    build_package(bundle, settings).write(folder / "package")
    check_package(folder / "package")
    atomic_write(folder / "app.toml", settings.to_toml().encode())
    out.say(f"{folder / 'package'}: {settings.codec} vectors, candidates by {', '.join(settings.candidates)}")

    out.heading("5. Answers")
    client = Client(folder / "index")
    for question, where in _questions(documents, judged, schema):
        note = f"   where {where}" if where else ""
        out.heading(f"{question}{note}")
        out.hits(client.search(question, 3, where=where, explain=True))

    out.heading("6. Report")
    if judged is None:
        evaluation = _known_items(out, folder, bundle, encoder, documents)
    else:
        with out.steps() as step:
            evaluation = evaluate(client, judged, encoder, step=step)
    index = open_index(folder / "index")
    report: dict[str, object] = {
        "passages": index.passages,
        "token_vectors": index.token_vectors,
        "bytes_per_token": index.bytes_per_token,
        "build_s": summary.seconds,
        "latency_ms": dict(evaluation.latency_ms),
        "recall_at_10": evaluation.recall_at_10,
    }
    bm25 = evaluation.baselines["bm25"]
    if judged is None:
        quality, ours, theirs = "MRR@10 of known items", evaluation.measured["mrr_at_10"], bm25["mrr_at_10"]
        report |= {"known_item_mrr_at_10": ours, "bm25_mrr_at_10": theirs}
    else:
        quality, ours, theirs = "nDCG@10", evaluation.measured["ndcg_at_10"], bm25["ndcg_at_10"]
        report |= {"ndcg_at_10": ours, "bm25_ndcg_at_10": theirs}
    report |= {"bundle": str(folder / "bundle"), "package": str(folder / "package")}
    out.table(
        {
            "passages": f"{index.passages:,}",
            "token vectors": f"{index.token_vectors:,}, {index.bytes_per_token:.1f} bytes each",
            "build": f"{summary.seconds:.1f} s, encoding included",
            "latency": "p50 {p50:.1f} ms, p95 {p95:.1f} ms, query encoding included".format(**evaluation.latency_ms),
            "recall@10": f"{evaluation.recall_at_10:.3f} against exact MaxSim, {evaluation.recall_queries} queries",
            quality: f"{ours:.3f} (BM25 on the same texts: {theirs:.3f}), {evaluation.queries} queries",
            "whole demo": f"{time.perf_counter() - start:.0f} s",
        }
    )
    _print_next(out, folder, source)
    out.result(report)


def _feed(
    documents: Sequence[Document], index: Path, bundle: Bundle, encoder: CachedEncoder
) -> tuple[FeedSummary, MetadataSchema]:
    options = FeedOptions(to=str(index), bundle=bundle, encoder=encoder, journal=index.with_suffix(".journal"))
    with start_feed([documents], options) as run, feed_view(run):
        return run.go(), run.surveyed.schema


def _questions(
    documents: Sequence[Document], judged: Judged | None, schema: MetadataSchema
) -> Sequence[tuple[str, dict[str, object] | None]]:
    """Return questions: our own for the standard library, or a collection's first five, the last with its most common value."""
    if judged is None:
        return QUESTIONS
    asked: list[tuple[str, dict[str, object] | None]] = [(query.text, None) for query in judged.queries[:5]]
    field = next((name for name, type_ in schema.fields.items() if type_ is FieldType.STRING), None)
    if field is not None:
        common = Counter(str(d.metadata[field]) for d in documents if d.metadata.get(field)).most_common(1)[0][0]
        asked[-1] = (asked[-1][0], {field: common})
    return asked


def _known_items(
    out: Output, folder: Path, bundle: Bundle, encoder: CachedEncoder, documents: Sequence[Document]
) -> Evaluation:
    """Measure known-item search: the query is a docstring's first sentence, which is removed from the indexed text.

    Taken are sentences of at least four words that stand in one docstring only; a seeded sample of 400.
    """
    split = {document.id: first_sentence(document.text) for document in documents}
    times = Counter(sentence for sentence, _ in split.values())
    usable = [id_ for id_, (sentence, rest) in split.items() if rest and times[sentence] == 1 and len(sentence.split()) >= 4]
    chosen = set(random.Random(SEED).sample(usable, min(KNOWN_ITEMS, len(usable))))
    changed = [dataclasses.replace(d, text=split[d.id][1]) if d.id in chosen else d for d in documents]
    queries = [CollectionQuery(d.id, split[d.id][0]) for d in documents if d.id in chosen]
    judged = Judged.of("known items", changed, queries, {query.id: {query.id: 1.0} for query in queries})
    with tempfile.TemporaryDirectory(prefix="known-item-", dir=folder) as scratch:
        index = Path(scratch) / "index"
        _feed(changed, index, bundle, encoder)
        with out.steps() as step:
            return evaluate(Client(index), judged, encoder, step=step)


def _print_next(out: Output, folder: Path, source: Path) -> None:
    command = shutil.which("colbert-vespa") or os.path.relpath(Path(sys.executable).with_name("colbert-vespa"))
    vespa, bundle = "http://localhost:8080", folder / "bundle"
    out.heading("Next: your own documents, a file or a folder")
    out.command(f"{command} feed DOCUMENTS --bundle {bundle} --to index --split sentences")
    out.command(f'{command} search "your question" --from index')
    out.heading("Next: the same data on Vespa")
    out.command(start_command())
    out.command(f"{command} deploy {folder / 'package'} --target docker")
    out.command(f"{command} feed {source} --bundle {bundle} --to {vespa}")
    out.command(f'{command} search "your question" --from {vespa}')
