"""The command line. Each command is a thin shell: open, call, print."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from colbert_vespa.cli.console import INTERRUPTED, Output, prepare_streams, print_error
from colbert_vespa.cli.index_commands import index_app
from colbert_vespa.cli.monitor_command import monitor_app
from colbert_vespa.cli.option_types import (
    COUNT,
    NUMBER,
    PORT,
    SECONDS,
    address,
    file_to_write,
    folder_to_write,
    path,
    real,
    source,
    text,
    whole,
)
from late_interaction.addresses import locate
from late_interaction.errors import ColbertVespaError, FilterError, UsageError
from late_interaction.files import atomic_write

__all__ = ["app", "main"]

app = typer.Typer(
    name="colbert-vespa",
    help="From any ColBERT checkpoint to a production Vespa cluster, with the same vectors and answers on a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(index_app, name="index")
app.add_typer(monitor_app, name="monitor")


Json = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object on one line; all else goes to stderr.")]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", help="Bundle folder; default: the one of the index, or known for the application.", parser=path),
]
Candidates = Annotated[str, typer.Option("--candidates", help="How candidates are found; auto: as the index describes itself.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", help="Seconds for a query, passed on to Vespa; default: 10.", parser=SECONDS)
]
RequireFull = Annotated[bool, typer.Option("--require-full", help="An answer that lacks documents is an error.")]
Rerank = Annotated[int | None, typer.Option("--rerank", help="How many candidates get their MaxSim score.", parser=COUNT)]


_ClickError: Any = typer.BadParameter.__mro__[2]  # typer's releases take it from click or from a copy of click


def main(arguments: Sequence[str] | None = None) -> None:
    """Errors are one line, exit code 1, or 2 for usage. `arguments`: default those of the process."""
    prepare_streams()
    try:
        sys.exit(app(arguments, standalone_mode=False))
    except ColbertVespaError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except _ClickError as error:
        if "\n" in error.format_message():  # without arguments, the help
            error.show()
        else:
            print_error(_usage(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            print_error(f"{error.filename or 'system'}: {error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(INTERRUPTED)


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"; see {context.command_path} --help"
    return str(error.format_message()).rstrip(".") + hint


@app.command()
def demo(
    model: Annotated[str | None, typer.Option("--model", help="Checkpoint: a folder or hub name; default: MiniLM.")] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Folder with corpus, queries and qrels.", parser=path)
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for bundle, package and index.", parser=folder_to_write)
    ] = Path("demo"),
    json_output: Json = False,
) -> None:
    """All of it on the embedded engine: checkpoint, bundle, application package, index, answers, report."""
    from colbert_vespa.cli.demo import run_demo

    run_demo(Output(json_output=json_output), output, model=model, collection=collection)


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub name: Stanford, PyLate, sentence-transformers or plain.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.", parser=folder_to_write)],
    quantize: Annotated[
        list[str] | None, typer.Option("--quantize", help="Also a smaller graph: int8, int8-tensor, fp16. Several times.")
    ] = None,
    sample: Annotated[
        Path | None, typer.Option("--sample", help="JSONL of your documents; trains the codebook.", parser=path)
    ] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", help="Of the codebook: 1, 2 or 4 a dimension; default: 4.", parser=whole(1, 4))
    ] = None,
    centroids: Annotated[
        int | None, typer.Option("--centroids", help="Of the codebook; default: as suits the sample.", parser=COUNT)
    ] = None,
    dim: Annotated[
        int | None, typer.Option("--dim", help="Keep so many dimensions; of a plain encoder 128.", parser=COUNT)
    ] = None,
    rules: Annotated[str, typer.Option("--rules", help="Tokenization: trained, or vespa as its colbert-embedder.")] = "trained",
    query_length: Annotated[str | None, typer.Option("--query-length", help="Rows of a query, or auto.")] = None,
    document_length: Annotated[
        int | None, typer.Option("--document-length", help="Rows of a document at most.", parser=COUNT)
    ] = None,
    pool_factor: Annotated[
        int, typer.Option("--pool-factor", help="Keep one document row of so many, 1 to 6.", parser=whole(1, 6))
    ] = 1,
    pool_method: Annotated[str, typer.Option("--pool-method", help="hierarchical or sequential.")] = "hierarchical",
    pool_protected: Annotated[
        int, typer.Option("--pool-protected", help="First rows that pooling leaves alone.", parser=NUMBER)
    ] = 1,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that the model brings.")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read tensors from pickled weights.")] = False,
    least_fp32: Annotated[
        float, typer.Option("--least-fp32", help="Worst cosine with torch that fp32 may have.", parser=real(-1, 1))
    ] = 0.9999,
    least_quantized: Annotated[
        float, typer.Option("--least-quantized", help="Mean cosine of a quantized graph.", parser=real(-1, 1))
    ] = 0.99,
    force: Annotated[bool, typer.Option("--force", help="Keep the bundle even if verification fails.")] = False,
    json_output: Json = False,
) -> None:
    """Turn a checkpoint into a bundle, verified against torch."""
    from colbert_vespa.cli.exporting import export_bundle
    from exporter import ExportOptions
    from late_interaction.bundle import Pooling

    options = ExportOptions(
        quantize=tuple(quantize or ()), dim=dim, rules=rules, query_length=_length(query_length),
        document_length=document_length, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle,
        least_fp32=least_fp32, least_quantized=least_quantized, force=force, bits=bits, centroids=centroids,
        pooling=None if pool_factor == 1 else Pooling(pool_factor, pool_method, pool_protected),
    )  # fmt: skip
    out = Output(json_output=json_output)
    out.result(export_bundle(out, checkpoint, output, options, sample))


def _length(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or not 1 <= len(text) <= 6 or int(text) == 0:
        raise UsageError(f"--query-length must be a number above 0, or auto, got {text[:40]!r}")
    return int(text)


@app.command("app")
def app_(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.", parser=path)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Application package folder to write.", parser=folder_to_write)
    ],
    settings: Annotated[
        Path | None, typer.Option("--settings", help="app.toml with the application's settings.", parser=path)
    ] = None,
    codec: Annotated[str | None, typer.Option("--codec", help="How token vectors are stored.")] = None,
    candidates: Annotated[list[str] | None, typer.Option("--candidates", help="May be given several times.")] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option("--sample", help="Documents to infer metadata fields from, without --settings.", parser=source),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option("--recall", help="Share of the exact top 10 that candidates shall find.", parser=real(0, 1, above=True)),
    ] = None,
    diff: Annotated[
        Path | None, typer.Option("--diff", help="Say what deploying over this package would do.", parser=path)
    ] = None,
    beside: Annotated[
        Path | None, typer.Option("--beside", help="Keep this package's indexes beside the new one.", parser=path)
    ] = None,
    switch: Annotated[bool, typer.Option("--switch", help="With --beside: ask the new index by default.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also write README.md: what each part is for.")] = False,
    json_output: Json = False,
) -> None:
    """Generate the Vespa application package of a bundle."""
    from colbert_vespa.cli.packaging import PackageOptions, write_package

    out = Output(json_output=json_output)
    result = write_package(
        out, bundle, output, settings=settings, codec=codec, candidates=candidates or [], sample=sample or [], recall=recall,
        options=PackageOptions(diff, beside, switch, explain),
    )  # fmt: skip
    out.result(result)


@app.command()
def deploy(
    package: Annotated[Path, typer.Argument(help="Application package folder.", parser=path)],
    target: Annotated[str, typer.Option("--target", help="docker, cloud, cloud-prod, or the config server's URL.")] = "docker",
    query_url: Annotated[str | None, typer.Option("--query-url", help="Where the application answers, if unusual.")] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds to wait until every service is up; default: 300, cloud more.", parser=SECONDS),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="A change that is refused by default, such as field-type-change or refeed."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the package and show what would be sent.")] = False,
    json_output: Json = False,
) -> None:
    """Deploy an application package and wait until it answers."""
    from colbert_vespa.cli.packaging import deploy_package, show_deployment

    out = Output(json_output=json_output)
    if dry_run:
        out.result(show_deployment(out, package, target, query_url=query_url, allow=allow or []))
    else:
        out.result(deploy_package(out, package, target, query_url=query_url, timeout=timeout, allow=allow or []))


@app.command()
def plan(
    documents: Annotated[float, typer.Option("--documents", help="Passages, as 1e9.", parser=real(1))],
    tokens: Annotated[float, typer.Option("--tokens", help="Token vectors of a passage.", parser=real(1))],
    settings: Annotated[
        Path | None, typer.Option("--settings", help="app.toml; options below win over it.", parser=path)
    ] = None,
    codec: Annotated[str | None, typer.Option("--codec", help="How token vectors are stored.")] = None,
    candidates: Annotated[list[str] | None, typer.Option("--candidates", help="May be given several times.")] = None,
    dim: Annotated[int | None, typer.Option("--dim", help="Dimensions of a token vector.", parser=COUNT)] = None,
    pooling: Annotated[
        float | None, typer.Option("--pooling", help="So many token vectors become one.", parser=real(1))
    ] = None,
    redundancy: Annotated[int | None, typer.Option("--redundancy", help="Copies of each passage.", parser=COUNT)] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", help="Groups of nodes, each with a whole copy.", parser=COUNT)
    ] = None,
    node_memory: Annotated[
        float | None, typer.Option("--node-memory", help="GB of a content node.", parser=real(0, above=True))
    ] = None,
    text_bytes: Annotated[float | None, typer.Option("--text-bytes", help="Bytes of a passage's text.", parser=real(0))] = None,
    per_document: Annotated[
        float | None,
        typer.Option("--passages-per-document", help="With layout chunks: passages that share a document.", parser=real(1)),
    ] = None,
    queries: Annotated[
        float | None,
        typer.Option(
            "--queries-per-second", help="How many groups and containers so many queries need.", parser=real(0, above=True)
        ),
    ] = None,
    centroids: Annotated[
        int | None, typer.Option("--centroids", help="Of the codebook; default: the bundle's.", parser=COUNT)
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Bundle whose dimensions and codebook count.", parser=path)
    ] = None,
    json_output: Json = False,
) -> None:
    """Memory, disk, nodes and an estimate of a query's cost, each with its formula and source."""
    from colbert_vespa.cli.packaging import plan_application

    out = Output(json_output=json_output)
    changes = {
        "codec": codec, "candidates": tuple(candidates) if candidates else None, "dim": dim, "pooling": pooling,
        "redundancy": redundancy, "groups": groups, "node_memory_gb": node_memory, "text_bytes": text_bytes,
        "passages_per_document": per_document, "queries_per_second": queries, "centroids": centroids,
    }  # fmt: skip
    out.result(plan_application(out, documents, tokens, settings, changes, bundle))


@app.command()
def feed(
    to: Annotated[str, typer.Option("--to", help="Local index folder, or http(s)://host:port of Vespa.", parser=address)],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="JSONL, CSV, TSV, Parquet, Arrow (.gz, .zst), folders of pages, collections; - for stdin.", parser=source
        ),
    ] = None,
    bundle: BundleOption = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="feed.toml: columns, passages, limits.", parser=path)
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Passages of a document: none, sentences or markdown.")] = None,
    retry: Annotated[Path | None, typer.Option("--retry", help="Feed a dead-letter file again.", parser=path)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what an interrupted feed already brought.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete these ids instead; a .txt file has one a line.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Change the metadata given, and nothing else.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; write nothing.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip and report files and records that cannot be read.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", help="Only so many documents.", parser=COUNT)] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Documents a second at most.", parser=real(0, above=True))
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Encoding processes; default: one for each core.", parser=whole(0, 1024))
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder of vectors, so that no text is encoded twice.", parser=folder_to_write),
    ] = None,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="Journal file; default: in the user's cache.", parser=file_to_write)
    ] = None,
    dead_letters: Annotated[
        Path | None,
        typer.Option("--dead-letters", help="File of refused documents; default: beside the journal.", parser=file_to_write),
    ] = None,
    metrics: Annotated[
        int | None,
        typer.Option("--metrics", help="Serve Prometheus metrics on this port of localhost while it runs.", parser=PORT),
    ] = None,
    codec: Annotated[str | None, typer.Option("--codec", help="Of a new local index: residual, binary or float32.")] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", help="Of codec residual: 1, 2 or 4 per dimension.", parser=whole(1, 4))
    ] = None,
    refine: Annotated[bool, typer.Option("--refine", help="A new local index also keeps int8 rows for its best hits.")] = False,
    shards: Annotated[
        int | None, typer.Option("--shards", help="A new local index has so many, a process each.", parser=whole(1, 1024))
    ] = None,
    shard_by: Annotated[
        str | None, typer.Option("--shard-by", help="Metadata field that decides on the shard; default: the id.")
    ] = None,
    add_fields: Annotated[
        bool, typer.Option("--add-fields", help="Add metadata fields that the documents have and the local index does not.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Feed documents into Vespa or a local index."""
    from colbert_vespa.cli.feed_view import feed_view
    from feeder import FeedOptions, open_sources, start_feed
    from feeder.metrics import FeedMetrics
    from feeder.settings import FeedSettings, read_feed_settings
    from feeder.sources import DeadLetterSource, open_id_lists
    from late_interaction.plaid import Storage
    from late_interaction.plaid.shards import Sharding

    out = Output(json_output=json_output)
    if (retry is None) == (not sources) or (delete and update) or (retry is not None and (delete or update)):
        raise UsageError("give sources or --retry FILE, and --delete or --update or neither; a retry knows what it was")
    how = FeedSettings() if settings is None else read_feed_settings(settings)
    splitting = how.splitting if split is None else dataclasses.replace(how.splitting, method=split)
    opening = open_id_lists if delete else open_sources
    files = opening(sources or [], dataclasses.replace(how.source, skip_bad=skip_bad))
    letters = None if retry is None else DeadLetterSource(retry)
    paths = [file.path for file in files] if letters is None else [letters.path]
    places = [str(path.absolute()) for path in paths]
    operation = letters.operation if letters else "delete" if delete else "update" if update else "put"
    verb = {"put": "fed", "delete": "deleted", "update": "updated"}[operation]
    target = locate(to, "--to")
    place = target.resolve() if isinstance(target, Path) else target
    key = hashlib.sha256(json.dumps([str(place), operation, places]).encode()).hexdigest()[:16]
    storage = Storage.chosen(codec, bits, refine)
    if shard_by is not None and shards is None:
        raise UsageError("--shard-by needs --shards: how many shards the new index shall have")
    options = FeedOptions(
        to=to, bundle=bundle, resume=resume, operation=operation, dry_run=dry_run, splitting=splitting, limit=limit, rate=rate,
        workers=workers, cache=cache, journal=journal or _journal_folder() / key, dead_letters=dead_letters, storage=storage,
        sharding=None if shards is None else Sharding(shards, shard_by), add_fields=add_fields,
    )  # fmt: skip
    with (
        contextlib.nullcontext() if metrics is None else FeedMetrics(metrics) as served,  # before anything is written
        start_feed([letters] if letters else files, options) as run,
        feed_view(run, served),
    ):
        try:
            summary = run.go()
        except ColbertVespaError:  # how far it came, and then why
            out.feed_summary(run.summary, verb)
            out.result(run.summary.to_json())
            raise
    out.feed_summary(summary, verb)
    out.result(summary.to_json())
    if summary.outcome == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if summary.dead_lettered:
        raise typer.Exit(1)


def _journal_folder() -> Path:
    from late_interaction.bundle_cache import cache_folder

    return cache_folder() / "journals"


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What to look for.", parser=text)],
    address: Annotated[
        list[str], typer.Option("--from", help="Local index folder or Vespa URL; several make one list.", parser=address)
    ],
    k: Annotated[int, typer.Option("-k", help="Number of passages.", parser=COUNT)] = 10,
    where: Annotated[str | None, typer.Option("--where", help='Filter, as {"field": value} in JSON.', parser=text)] = None,
    candidates: Candidates = "auto",
    index: Annotated[list[str] | None, typer.Option("--index", help="Index of a Vespa application; several in one.")] = None,
    rerank: Rerank = None,
    probes: Annotated[
        int | None, typer.Option("--probes", help="Centroids looked up for each query row.", parser=COUNT)
    ] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", help="Hits before this page; give it on all pages.", parser=NUMBER)
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option("--weight", help="Of candidates hybrid: maxsim=1.0 or bm25=1.0. Several times.")
    ] = None,
    scored: Annotated[str, typer.Option("--scored", help="MaxSim in the engine, or at the client.")] = "engine",
    timeout: Timeout = None,
    require_full: RequireFull = False,
    heatmap: Annotated[
        Path | None, typer.Option("--heatmap", help="Write words against words as an HTML page.", parser=file_to_write)
    ] = None,
    group: Annotated[bool, typer.Option("--group", help="One hit a document: its best passage.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show which words matched and what each stage took.")] = False,
    bundle: BundleOption = None,
    json_output: Json = False,
) -> None:
    """Search: candidates first, then late-interaction reranking."""
    from query import Client, ClientSettings
    from query.heatmap import heatmap_page

    out = Output(json_output=json_output)
    filter_, weights = _where(where), _weights(weight or [])
    settings = ClientSettings(require_full=require_full)
    with Client(address, bundle, settings=settings) as client:
        found = client.search(
            query, k, where=filter_, candidates=candidates, index=index, rerank=rerank, probes=probes, offset=offset,
            group=group, weights=weights, scored=scored, timeout=timeout,
            explain=explain or heatmap is not None or not json_output,  # people see which words matched
        )  # fmt: skip
    out.hits(found)
    if explain:
        out.explanation(found)
    if heatmap is not None:
        atomic_write(heatmap, heatmap_page(query, found).encode())
        out.say(f"words against words: {heatmap}")
    out.result({"from": address[0] if len(address) == 1 else address, **found.to_json()})


def _weights(given: Sequence[str]) -> dict[str, float] | None:
    found = {}
    for item in given:
        name, _, value = item.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UsageError(f"--weight must be NAME=NUMBER, as bm25=0.5, got {item!r}") from None
    return found or None


def _where(text: str | None) -> dict[str, object] | None:
    if text is None:
        return None
    from late_interaction.filters import where_from_json

    try:
        return where_from_json(text)
    except FilterError as error:
        raise UsageError(f"--where: {error}") from None


@app.command()
def evaluate(
    address: Annotated[
        str | None, typer.Option("--from", help="Local index folder, Vespa URL, or a TREC run of any engine.", parser=address)
    ] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Folder with corpus, queries and qrels.", parser=path)
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option("--qrels", help="Judgements of TREC or BEIR instead of the folder's.", parser=path)
    ] = None,
    candidates: Candidates = "auto",
    rerank: Rerank = None,
    queries: Annotated[int | None, typer.Option("--queries", help="A seeded sample of so many queries.", parser=COUNT)] = None,
    recall_queries: Annotated[
        int, typer.Option("--recall-queries", help="Queries compared with exact MaxSim.", parser=NUMBER)
    ] = 300,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="One more, as ndcg@20 or map@1000. Several times.")
    ] = None,
    dense: Annotated[
        str | None, typer.Option("--dense", help="Checkpoint of the dense baseline; default: mean token vectors.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="TREC run to compare with.", parser=path)] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Write the hits as a TREC run.", parser=file_to_write)] = None,
    recall: Annotated[
        bool, typer.Option("--recall", help="Measure candidates and hits against exhaustive MaxSim: the whole curve.")
    ] = False,
    goal: Annotated[str | None, typer.Option("--goal", help="With --recall: what to reach, as recall@10=0.98.")] = None,
    tradeoffs: Annotated[
        bool,
        typer.Option("--tradeoffs", help="Quality, bytes and latency over codecs, pooling and candidates; needs --bundle."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Of --recall or --tradeoffs: write it as .png or .svg.", parser=file_to_write)
    ] = None,
    timeout: Timeout = None,
    require_full: RequireFull = False,
    bundle: BundleOption = None,
    json_output: Json = False,
) -> None:
    """Quality with significance, recall against exact MaxSim, and latency on a judged collection, beside BM25 and dense."""
    from colbert_vespa.cli.evaluate_command import EvaluateOptions, run_evaluate
    from query import ClientSettings

    settings = ClientSettings(timeout=10.0 if timeout is None else timeout, require_full=require_full)
    options = EvaluateOptions(
        address, collection, qrels, candidates, rerank, queries, recall_queries, tuple(metric or ()), dense, baseline, run,
        recall, goal, tradeoffs, plot, bundle, settings,
    )  # fmt: skip
    run_evaluate(Output(json_output=json_output), options)


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="JSONL of examples, a collection, or bare documents.", parser=path)],
    model: Annotated[str, typer.Option("--model", help="Checkpoint or plain encoder to start from: folder or hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to write.", parser=folder_to_write)],
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="contrastive, cached-contrastive, n-way, kl, margin-mse or colbertv2."),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Times through the data; default: 1.", parser=real(0, above=True))
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps at most.", parser=COUNT)] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Queries of a step; default: 32.", parser=COUNT)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="At its highest; default: 3e-5.", parser=real(0, above=True))
    ] = None,
    document_length: Annotated[
        int | None, typer.Option("--document-length", help="Tokens while training; 128.", parser=COUNT)
    ] = None,
    negatives: Annotated[
        int | None, typer.Option("--negatives", help="Hard negatives of a query; default: 1.", parser=NUMBER)
    ] = None,
    mine_by: Annotated[list[str] | None, typer.Option("--mine-by", help="bm25 or model; several times.")] = None,
    first_rank: Annotated[
        int | None, typer.Option("--first-rank", help="Negatives rank no better; default: 1.", parser=COUNT)
    ] = None,
    last_rank: Annotated[
        int | None, typer.Option("--last-rank", help="Negatives rank no worse; default: 30.", parser=COUNT)
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="A negative scores so much below the positive.", parser=real(-math.inf))
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", help="A negative has at most this share of the positive's score.", parser=real(0, above=True)),
    ] = None,
    remine: Annotated[bool, typer.Option("--remine", help="Mine again before each epoch.")] = False,
    keep_start: Annotated[
        float | None, typer.Option("--keep-start", help="Share of the start's weights kept.", parser=real(0, 1))
    ] = None,
    pool_factor: Annotated[
        int | None, typer.Option("--pool-factor", help="Train through token pooling.", parser=whole(1, 6))
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option("--evaluate-every", help="Steps; default: a tenth of them.", parser=COUNT)
    ] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after so many evaluations without gain.", parser=COUNT)
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything that is drawn.", parser=NUMBER)] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="Source of further texts to mine from.", parser=path)
    ] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Held out for evaluation and report.", parser=path)
    ] = None,
    hold_out: Annotated[
        float, typer.Option("--hold-out", help="Share of queries held out; 0 for none.", parser=real(0, 1))
    ] = 0.1,
    teacher: Annotated[str | None, typer.Option("--teacher", help="Cross-encoder: folder or hub name.")] = None,
    dense: Annotated[
        str | None, typer.Option("--dense", help="Dense encoder to compare with; default: MiniLM where it is installed.")
    ] = None,
    layout: Annotated[
        str, typer.Option("--layout", help="sentence-transformers, pylate or stanford.")
    ] = "sentence-transformers",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Also export the result to this folder.", parser=folder_to_write)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the report's plot here as well.", parser=file_to_write)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    json_output: Json = False,
) -> None:
    """Train a checkpoint on examples or bare documents, with a before/after report."""
    from colbert_vespa.cli.train_command import TrainRequest, run_training
    from colbert_vespa.training import MiningSettings

    mining = {"by": tuple(mine_by) if mine_by else None, "first_rank": first_rank, "last_rank": last_rank, "margin": margin,
              "ratio": ratio}  # fmt: skip
    out = Output(json_output=json_output)
    request = TrainRequest(
        data, model, output, documents, collection, hold_out, teacher, dense, layout, bundle, plot, resume
    )  # fmt: skip
    changes: dict[str, object] = {
        "objective": objective, "epochs": epochs, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "document_length": document_length, "negatives": negatives, "keep_start": keep_start, "patience": patience,
        "precision": precision, "seed": seed, "remine": remine, "pool_factor": pool_factor, "evaluate_every": evaluate_every,
        "mining": MiningSettings(**{name: value for name, value in mining.items() if value is not None}),  # type: ignore[arg-type]
    }  # fmt: skip
    out.result(run_training(out, request, changes))


@app.command()
def serve(
    address: Annotated[
        str, typer.Argument(help="Local index folder or Vespa URL, with #NAME for one of its indexes.", parser=address)
    ],
    mcp: Annotated[bool, typer.Option("--mcp", help="As an MCP server with tools search and fetch.")] = False,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", help="Streamable HTTP on this machine, at /mcp; default: standard input and output.", parser=PORT
        ),
    ] = None,
    candidates: Candidates = "auto",
    url_field: Annotated[str, typer.Option("--url-field", help="Metadata field with a document's URL.")] = "url",
    timeout: Timeout = None,
    bundle: BundleOption = None,
) -> None:
    """Serve an index to agents."""
    if not mcp:
        raise UsageError("serve has the MCP server only, so far: give --mcp (an HTTP API and a page come in a later version)")
    from colbert_vespa.mcp_server import ServerOptions, serve_mcp
    from query import Client

    with Client(address, bundle) as client:
        serve_mcp(client, ServerOptions(candidates, url_field, timeout), port)


@app.command()
def parity(
    bundle: Annotated[Path, typer.Option("--bundle", help="Bundle folder.", parser=path)],
    address: Annotated[
        list[str] | None, typer.Option("--from", help="Local index folder or Vespa URL. Several times.", parser=address)
    ] = None,
    checkpoint: Annotated[str | None, typer.Option("--checkpoint", help="What the bundle was exported from: torch.")] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Folder whose queries and documents are asked.", parser=path)
    ] = None,
    documents: Annotated[Path | None, typer.Option("--documents", help="Source of documents.", parser=path)] = None,
    queries: Annotated[Path | None, typer.Option("--queries", help="Source whose texts are queries.", parser=path)] = None,
    sample: Annotated[int, typer.Option("--sample", help="Documents of the sample.", parser=COUNT)] = 100,
    query_sample: Annotated[int, typer.Option("--query-sample", help="Queries of the sample.", parser=COUNT)] = 30,
    k: Annotated[int, typer.Option("-k", help="Hits whose overlap counts.", parser=COUNT)] = 10,
    threshold: Annotated[
        list[str] | None, typer.Option("--threshold", help="Instead of the default, as codec.mean_cosine=0.98. Several times.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.", parser=file_to_write)] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page.", parser=file_to_write)] = None,
    json_output: Json = False,
) -> None:
    """Compare torch, graphs, stored vectors, candidates and scores in pairs; exit code 1 where a threshold fails."""
    from colbert_vespa.cli.parity_command import run_parity
    from colbert_vespa.evaluation.parity.texts import sample_texts

    texts = sample_texts(collection, documents, queries, sample, query_sample)
    if not run_parity(
        Output(json_output=json_output), bundle, texts, address or [], checkpoint=checkpoint, k=k, thresholds=threshold or [],
        junit=junit, html=html,
    ):  # fmt: skip
        raise typer.Exit(1)
