"""`evaluate` and `parity`: how good the answers are, and whether production answers as the model does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.option_types import (
    COUNT,
    JUNIT,
    NUMBER,
    PAGE,
    PLOT,
    TREC_RUN,
    BundleOption,
    Candidates,
    Json,
    RequireFull,
    Rerank,
    Timeout,
    address,
    path,
)

__all__ = ["evaluate", "parity"]


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
    run: Annotated[Path | None, typer.Option("--run", help="Write the hits as a TREC run.", parser=TREC_RUN)] = None,
    recall: Annotated[
        bool, typer.Option("--recall", help="Measure candidates and hits against exhaustive MaxSim: the whole curve.")
    ] = False,
    goal: Annotated[str | None, typer.Option("--goal", help="With --recall: what to reach, as recall@10=0.98.")] = None,
    tradeoffs: Annotated[
        bool,
        typer.Option("--tradeoffs", help="Quality, bytes and latency over codecs, pooling and candidates; needs --bundle."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Of --recall or --tradeoffs: write it as .png or .svg.", parser=PLOT)
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
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.", parser=JUNIT)] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page.", parser=PAGE)] = None,
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
