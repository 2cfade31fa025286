"""What `evaluate` does with its options: a client, a run of another engine, the recall by effort, or trade-offs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from colbert_vespa.cli.console import Output
from colbert_vespa.evaluation.evaluating import Beside, Evaluation, evaluate_address, evaluate_run, recall_at_address
from colbert_vespa.evaluation.metrics import parse_metric
from colbert_vespa.evaluation.recall import parse_goal, plot_recall
from colbert_vespa.evaluation.runs import read_run, write_run
from late_interaction.errors import UsageError
from query import ClientSettings
from query.options import AUTO

__all__ = ["EvaluateOptions", "run_evaluate"]


@dataclass(frozen=True)
class EvaluateOptions:
    """As the command line has them. address: of an index, or a TREC run."""

    address: str | None
    collection: Path | None
    qrels: Path | None = None
    candidates: str = AUTO
    rerank: int | None = None
    queries: int | None = None
    recall_queries: int = 300
    metrics: tuple[str, ...] = ()
    dense: str | None = None
    baseline: Path | None = None
    run: Path | None = None
    recall: bool = False
    goal: str | None = None
    tradeoffs: bool = False
    plot: Path | None = None
    bundle: Path | None = None
    settings: ClientSettings | None = None


def run_evaluate(out: Output, options: EvaluateOptions) -> None:
    """Raises: UsageError on options that do not go together; as evaluate_address."""
    if options.tradeoffs:
        _tradeoffs(out, options)
    elif options.recall or options.goal is not None or options.plot is not None:
        _recall(out, options)
    else:
        found = _evaluation(out, options)
        out.evaluation(found)
        if options.run is not None:
            write_run(options.run, found.run)
            out.say(f"run: {options.run}")
        out.result(found.to_json())


def _evaluation(out: Output, options: EvaluateOptions) -> Evaluation:
    beside = Beside(
        tuple(parse_metric(text) for text in options.metrics), options.dense,
        None if options.baseline is None else read_run(options.baseline),
    )  # fmt: skip
    if options.address is not None and Path(options.address).is_file():
        if options.qrels is None:
            raise UsageError(f"{options.address} is a run: give the judgements with --qrels FILE")
        return evaluate_run(Path(options.address), options.qrels, beside)
    address, collection = _both(options)
    with out.steps() as step:
        return evaluate_address(
            address, collection, bundle=options.bundle, candidates=options.candidates, rerank=options.rerank,
            queries=options.queries, recall_queries=options.recall_queries, qrels=options.qrels, beside=beside,
            settings=options.settings, step=step,
        )  # fmt: skip


def _both(options: EvaluateOptions) -> tuple[str, Path]:
    if options.address is None or options.collection is None:
        raise UsageError("give --from ADDRESS and --collection DIR; or --from RUN with --qrels FILE; or --tradeoffs")
    return options.address, options.collection


def _recall(out: Output, options: EvaluateOptions) -> None:
    address, collection = _both(options)
    wanted = parse_goal(options.goal or "recall@10=0.98")
    names = None if options.candidates == AUTO else [options.candidates]
    with out.steps() as step:
        report = recall_at_address(
            address, collection, wanted, bundle=options.bundle, strategies=names,
            queries=options.queries or options.recall_queries, settings=options.settings, step=step,
        )  # fmt: skip
    out.recall(report)
    if options.plot is not None:
        plot_recall(report, options.plot)
        out.say(f"plot: {options.plot}")
    out.result(report.to_json())


def _tradeoffs(out: Output, options: EvaluateOptions) -> None:
    from colbert_vespa.evaluation.tradeoffs import plot_tradeoffs, tradeoffs_of

    if options.collection is None or options.bundle is None or options.address is not None:
        raise UsageError("--tradeoffs builds indexes of its own: give --bundle and --collection, and no --from")
    with out.steps() as step:
        found = tradeoffs_of(options.bundle, options.collection, queries=options.queries, qrels=options.qrels, step=step)
    out.tradeoffs(found)
    if options.plot is not None:
        plot_tradeoffs(found, options.plot)
        out.say(f"plot: {options.plot}")
    out.result(found.to_json())
