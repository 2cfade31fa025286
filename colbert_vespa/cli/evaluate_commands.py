"""`evaluate` and `parity`: the quality of results, and whether production returns the model's results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    DenseModel,
    DeviceNumber,
    DeviceOption,
    Fusion,
    Json,
    RequireFull,
    Rerank,
    RerankTop,
    RerankWith,
    Timeout,
    Weight,
    address,
    checkpoint,
    chosen_device,
    path,
    weights_of,
)
from late_interaction.errors import UsageError
from late_interaction.files import atomic_write

if TYPE_CHECKING:
    from colbert_vespa.evaluation.evaluating import Evaluation, EvaluationSettings, Judged
    from colbert_vespa.evaluation.recall import RecallGoal
    from late_interaction.devices import Device
    from late_interaction.encoder import Encoder
    from query import Client
    from query.types import Query

__all__ = ["evaluate", "parity"]


def evaluate(
    address: Annotated[
        str | None, typer.Option("--from", help="Local index folder, Vespa URL, or a TREC run of any engine.", parser=address)
    ] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Folder with corpus, queries and qrels.", parser=path)
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option("--qrels", help="TREC or BEIR judgements to use instead of the folder's.", parser=path)
    ] = None,
    candidates: Candidates = "auto",
    rerank: Rerank = None,
    weight: Weight = None,
    fusion: Fusion = None,
    dense_model: DenseModel = None,
    rerank_with: RerankWith = None,
    rerank_with_top: RerankTop = None,
    queries: Annotated[
        int | None, typer.Option("--queries", help="Use a seeded sample of this many queries.", parser=COUNT)
    ] = None,
    recall_queries: Annotated[
        int, typer.Option("--recall-queries", help="Queries compared with exact MaxSim.", parser=NUMBER)
    ] = 300,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="Additional metric, such as ndcg@20 or map@1000. Repeatable.")
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option(
            "--dense",
            help="Checkpoint of the dense baseline; default: the bundle's dense model, or mean token vectors.",
            parser=checkpoint,
        ),
    ] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="TREC run to compare with.", parser=path)] = None,
    run: Annotated[Path | None, typer.Option("--run", help="Write the hits as a TREC run.", parser=TREC_RUN)] = None,
    recall: Annotated[
        bool, typer.Option("--recall", help="Measure candidates and hits against exhaustive MaxSim: the whole curve.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Search in every way: by each score, as candidates of MaxSim, and fused.")
    ] = False,
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit the weights of candidates hybrid to the judgements, cross-validated.")
    ] = False,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--settings", help="With --fit: app.toml to receive the weights, if the gain is significant.", parser=path
        ),
    ] = None,
    goal: Annotated[str | None, typer.Option("--goal", help="With --recall: the goal, such as recall@10=0.98.")] = None,
    tradeoffs: Annotated[
        bool,
        typer.Option("--tradeoffs", help="Quality, bytes and latency over codecs, pooling and candidates; needs --bundle."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write the plot of --recall or --tradeoffs as .png or .svg.", parser=PLOT)
    ] = None,
    timeout: Timeout = None,
    require_full: RequireFull = False,
    bundle: BundleOption = None,
    device: DeviceOption = "auto",
    device_id: DeviceNumber = None,
    json_output: Json = False,
) -> None:
    """Measure quality, recall against exact MaxSim and latency on a judged collection, compared with BM25 and dense search."""
    from colbert_vespa.evaluation.evaluating import EvaluationSettings, Judged, evaluate_run, sampled_queries
    from colbert_vespa.evaluation.metrics import parse_metric
    from colbert_vespa.evaluation.recall import parse_goal
    from colbert_vespa.evaluation.runs import read_run
    from query import Client, ClientSettings

    out, on = Output(json_output=json_output), chosen_device(device, device_id)
    client_settings = ClientSettings(timeout=10.0 if timeout is None else timeout, require_full=require_full)
    settings = EvaluationSettings(
        candidates, rerank, recall_queries, tuple(parse_metric(text) for text in metric or ()), dense,
        None if baseline is None else read_run(baseline), weights_of(weight), fusion, dense_model, rerank_with, rerank_with_top,
    )  # fmt: skip
    recall = recall or goal is not None or plot is not None
    no_search = recall or tradeoffs or (address is not None and Path(address).is_file())
    _check_modes(settings, recall or tradeoffs, fit, settings_file)
    if fit:
        _check_fit(settings, no_search)
    if compare:
        _check_compare(settings, no_search or fit or run is not None)
    if tradeoffs:
        if collection is None or bundle is None or address is not None:
            raise UsageError("--tradeoffs builds its own indexes; give --bundle and --collection, and omit --from")
        _show_tradeoffs(out, _tradeoff_encoder(bundle, on), Judged.read(collection, qrels, queries), plot)
    elif address is not None and not recall and Path(address).is_file():
        if qrels is None:
            raise UsageError(f"{address} is a TREC run; give its judgements with --qrels FILE")
        _show_evaluation(out, evaluate_run(Path(address), qrels, settings), run)
    elif address is None or collection is None:
        raise UsageError("give --from ADDRESS and --collection DIR; or --from RUN with --qrels FILE; or --tradeoffs")
    elif recall:
        wanted, asked = parse_goal(goal or "recall@10=0.98"), sampled_queries(collection, queries or recall_queries)
        with Client(address, bundle, settings=client_settings, device=on) as client:
            _show_recall(out, client, asked, wanted, candidates, plot)
    else:
        judged = Judged.read(collection, qrels, queries)
        whole = dataclasses.replace(client_settings, require_full=True)  # a part of an answer measures nothing
        with Client(address, bundle, settings=whole, device=on) as client:
            if compare:
                _show_ways(out, client, judged, settings)
            elif fit:
                _show_fit(out, client, judged, settings, settings_file)
            else:
                _show_evaluation(out, _evaluated(out, client, judged, settings), run)


def _tradeoff_encoder(bundle: Path, device: Device) -> Encoder:
    """Open the encoder for --tradeoffs; UsageError if the bundle has no model."""
    from late_interaction.bundle import Bundle
    from late_interaction.encoder import Encoder

    opened = Bundle.open(bundle)
    if not opened.encodes:
        raise UsageError(f"--tradeoffs encodes the collection, but {bundle} has no model; compare indexes with --recall")
    return Encoder(opened, device=device)


def _check_modes(settings: EvaluationSettings, by_maxsim: bool, fit: bool, settings_file: Path | None) -> None:
    """Reject options of another mode with UsageError. `by_maxsim`: --recall or --tradeoffs is given."""
    if settings.cross_encoded and by_maxsim:
        raise UsageError("--recall and --tradeoffs compare with MaxSim; omit --rerank-with and --rerank-top")
    if settings_file is not None and not fit:
        raise UsageError("--settings works only with --fit")


def _check_fit(settings: EvaluationSettings, no_search: bool) -> None:
    """Reject options that --fit would ignore, with UsageError."""
    if settings.cross_encoded:
        raise UsageError("--fit fuses scores before the cross-encoder; omit --rerank-with and --rerank-top")
    if no_search:
        raise UsageError("--fit needs an index's scores; omit --recall, --goal, --plot and --tradeoffs, and give no run")
    if settings.candidates not in ("auto", "hybrid"):
        raise UsageError(f"--fit uses candidates hybrid; omit --candidates {settings.candidates}")
    if settings.weights and len(settings.weights) < 2:
        raise UsageError("--fit weighs scores against each other; give --weight for at least two of them, or for none")


def _check_compare(settings: EvaluationSettings, other: bool) -> None:
    """Reject options that --compare would ignore, with UsageError."""
    if other:
        raise UsageError("--compare is a separate report; omit --fit, --run, --recall, --goal, --plot and --tradeoffs")
    chosen = (settings.candidates != "auto", settings.weights, settings.fusion, settings.dense, settings.baseline)
    if any(chosen) or settings.cross_encoded:
        raise UsageError(
            "--compare searches in every way; omit --candidates, --weight, --fusion, --dense, --baseline, --rerank-with "
            "and --rerank-top"
        )


def _show_ways(out: Output, client: Client, judged: Judged, settings: EvaluationSettings) -> None:
    from colbert_vespa.evaluation.ways import measure_ways

    with out.steps() as step:
        report = measure_ways(client, judged, settings, step=step)
    out.ways(report)
    out.result(report.to_json())


def _show_fit(out: Output, client: Client, judged: Judged, asked: EvaluationSettings, settings: Path | None) -> None:
    """Print the fitted weights and their gain; write them to `settings` if the gain is significant."""
    from colbert_vespa.evaluation.fitting import Way, fit_weights, record_scores, write_weights
    from colbert_vespa.evaluation.metrics import STANDARD

    dense = {"dense": 1.0} if client.bundle.manifest.dense else {}
    now = Way(asked.weights or {"bm25": 1.0, "maxsim": 1.0, **dense}, asked.fusion or "rrf")
    metric = (*asked.metrics, *STANDARD)[0]
    with out.steps() as step:
        recorded = record_scores(client, judged, now, step, dense=asked.model)
    found = fit_weights(recorded, judged.qrels, now, metric)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in found.fitted.weights.items())
    chance = found.difference.randomisation
    out.say(f"fitted on {found.queries} queries: fusion {found.fitted.fusion}, weights {weights}")
    out.say(
        f"{metric.name}@{metric.k} of held-out queries: {found.held_out:.4f}, with the current weights {found.before:.4f} "
        f"(difference {found.difference.difference:+.4f}, p {'unknown' if chance is None else f'{chance:.3f}'})"
    )
    if not found.recommended:
        out.say("the gain is not significant; keep the weights, or judge more queries")
    elif settings is not None:
        write_weights(settings, found.fitted)
        out.say(f"written to {settings}; generate the application again and deploy it")
    out.result(found.to_json())


def _evaluated(out: Output, client: Client, judged: Judged, settings: EvaluationSettings) -> Evaluation:
    from colbert_vespa.evaluation.evaluating import cached_encoder, evaluate

    with out.steps() as step:
        if not settings.recall_queries or not client.bundle.encodes:
            return evaluate(client, judged, None, settings, step=step)
        with cached_encoder(client.encoder) as encoder:
            return evaluate(client, judged, encoder, settings, step=step)


def _show_evaluation(out: Output, evaluation: Evaluation, run: Path | None) -> None:
    from colbert_vespa.evaluation.runs import write_run

    out.evaluation(evaluation)
    if run is not None:
        write_run(run, evaluation.run)
        out.say(f"run: {run}")
    out.result(evaluation.to_json())


def _show_recall(
    out: Output, client: Client, queries: Sequence[Query], goal: RecallGoal, candidates: str, plot: Path | None
) -> None:
    from colbert_vespa.evaluation.recall import measure_recall, plot_recall
    from query.options import AUTO

    with out.steps() as step:
        report = measure_recall(client, queries, goal, strategies=None if candidates == AUTO else [candidates], step=step)
    out.recall(report)
    if plot is not None:
        plot_recall(report, plot)
        out.say(f"plot: {plot}")
    out.result(report.to_json())


def _show_tradeoffs(out: Output, encoder: Encoder, judged: Judged, plot: Path | None) -> None:
    from colbert_vespa.evaluation.evaluating import cached_encoder
    from colbert_vespa.evaluation.tradeoffs import measure_tradeoffs, plot_tradeoffs

    with out.steps() as step, cached_encoder(encoder) as cached:
        tradeoffs = measure_tradeoffs(cached, judged, step=step)
    out.tradeoffs(tradeoffs)
    if plot is not None:
        plot_tradeoffs(tradeoffs, plot)
        out.say(f"plot: {plot}")
    out.result(tradeoffs.to_json())


def parity(
    bundle: Annotated[Path, typer.Option("--bundle", help="Bundle folder.", parser=path)],
    address: Annotated[
        list[str] | None, typer.Option("--from", help="Local index folder or Vespa URL. Repeatable.", parser=address)
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="Checkpoint that the bundle was exported from, run by torch.", parser=checkpoint),
    ] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Folder with the queries and documents to use.", parser=path)
    ] = None,
    documents: Annotated[Path | None, typer.Option("--documents", help="Source of documents.", parser=path)] = None,
    queries: Annotated[Path | None, typer.Option("--queries", help="Source whose texts are queries.", parser=path)] = None,
    sample: Annotated[int, typer.Option("--sample", help="Documents of the sample.", parser=COUNT)] = 100,
    query_sample: Annotated[int, typer.Option("--query-sample", help="Queries of the sample.", parser=COUNT)] = 30,
    k: Annotated[int, typer.Option("-k", help="Hits whose overlap is measured.", parser=COUNT)] = 10,
    threshold: Annotated[
        list[str] | None, typer.Option("--threshold", help="Override a default, such as codec.mean_cosine=0.98. Repeatable.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.", parser=JUNIT)] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write an HTML report.", parser=PAGE)] = None,
    device: DeviceOption = "auto",
    device_id: DeviceNumber = None,
    json_output: Json = False,
) -> None:
    """Compare torch, graphs, stored vectors, candidates and scores in pairs; exit code 1 if a threshold is missed."""
    from colbert_vespa.evaluation.parity.report import html_page, junit_xml
    from colbert_vespa.evaluation.parity.run import compare_all
    from colbert_vespa.evaluation.parity.texts import sample_texts
    from colbert_vespa.evaluation.parity.thresholds import parse_thresholds
    from late_interaction.bundle import Bundle

    out = Output(json_output=json_output)
    texts = sample_texts(collection, documents, queries, sample, query_sample)
    wanted = parse_thresholds(threshold or [])
    report = compare_all(
        Bundle.open(bundle), texts, address or [], checkpoint=checkpoint, k=k, thresholds=wanted, say=out.say,
        device=chosen_device(device, device_id),
    )  # fmt: skip
    out.parity(report)
    if junit is not None:
        atomic_write(junit, junit_xml(report))
    if html is not None:
        atomic_write(html, html_page(report).encode())
    out.result(report.to_json())
    if report.failed:
        raise typer.Exit(1)
