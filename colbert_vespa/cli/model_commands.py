"""`export`, `bundle` and `train`: checkpoint to bundle, a bundle without a model, examples to checkpoint."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.option_types import (
    COUNT,
    NUMBER,
    PLOT,
    Columns,
    DeviceNumber,
    DeviceOption,
    Json,
    checkpoint,
    chosen_device,
    folder_to_write,
    path,
    real,
    whole,
)
from late_interaction.errors import MissingDependency, UsageError
from late_interaction.extras import require
from late_interaction.files import check_folder

if TYPE_CHECKING:
    from colbert_vespa.training import HoldOut, TrainingData

__all__ = ["bundle", "export", "train"]


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Folder or hub name: Stanford, PyLate, sentence-transformers, plain; minilm, which needs no hub; or a bundle.",
            parser=checkpoint,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Bundle folder to write; replaces a bundle that is there.", parser=folder_to_write),
    ],
    quantize: Annotated[
        list[str] | None, typer.Option("--quantize", help="Also write a smaller graph: int8, int8-tensor, fp16. Repeatable.")
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            "--sample", help="Some of your documents, in any form that feed accepts; trains the codebook.", parser=path
        ),
    ] = None,
    column: Columns = None,
    bits: Annotated[
        int | None,
        typer.Option("--bits", help="Bits per dimension of the codebook: 1, 2 or 4; default: 4.", parser=whole(1, 4)),
    ] = None,
    centroids: Annotated[
        int | None,
        typer.Option("--centroids", help="Centroids of the codebook; default: what suits --documents.", parser=COUNT),
    ] = None,
    documents: Annotated[
        float | None,
        typer.Option(
            "--documents", help="Number of documents to size the codebook for; default: the sample's.", parser=real(1, 1e15)
        ),
    ] = None,
    candidates_goal: Annotated[
        str | None,
        typer.Option(
            "--candidates-goal",
            help="Find the cheapest candidates with this recall, such as recall@10=0.98.",
        ),
    ] = None,
    dim: Annotated[int | None, typer.Option("--dim", help="Dimensions to keep; 128 for a plain encoder.", parser=COUNT)] = None,
    rules: Annotated[
        str, typer.Option("--rules", help="Tokenization: trained, or vespa for that of Vespa's colbert-embedder.")
    ] = "trained",
    query_length: Annotated[str | None, typer.Option("--query-length", help="Rows of a query, or auto.")] = None,
    document_length: Annotated[
        int | None, typer.Option("--document-length", help="Most rows of a document.", parser=COUNT)
    ] = None,
    pool_factor: Annotated[
        int, typer.Option("--pool-factor", help="Keep one document row of this many, 1 to 6.", parser=whole(1, 6))
    ] = 1,
    pool_method: Annotated[str, typer.Option("--pool-method", help="hierarchical or sequential.")] = "hierarchical",
    pool_protected: Annotated[
        int, typer.Option("--pool-protected", help="Rows at the start that pooling leaves alone.", parser=NUMBER)
    ] = 1,
    dense: Annotated[
        list[str] | None,
        typer.Option("--dense", help="Dense model beside it: CHECKPOINT, NAME=CHECKPOINT, NAME=ready-made.", parser=checkpoint),
    ] = None,
    dense_dim: Annotated[
        list[str] | None, typer.Option("--dense-dim", help="Dimensions of it to keep: N, or NAME=N. Repeatable.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")] = False,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Read tensors from pickled weights.")] = False,
    least_fp32: Annotated[
        float, typer.Option("--least-fp32", help="Lowest allowed cosine of fp32 with torch.", parser=real(-1, 1))
    ] = 0.9999,
    least_quantized: Annotated[
        float, typer.Option("--least-quantized", help="Lowest allowed mean cosine of a quantized graph.", parser=real(-1, 1))
    ] = 0.99,
    cross_encoder: Annotated[
        bool, typer.Option("--cross-encoder", help="Export a classifier with one label, for --rerank-with.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Keep the bundle even if verification fails.")] = False,
    device: DeviceOption = "auto",
    device_id: DeviceNumber = None,
    json_output: Json = False,
) -> None:
    """Turn a checkpoint into a bundle, verified against torch."""
    from colbert_vespa.cli.exporting import dense_counts, dense_values, export_bundle, export_reranker
    from colbert_vespa.evaluation.recall import parse_goal
    from exporter import ExportOptions
    from late_interaction.bundle import Pooling

    options = ExportOptions(
        quantize=tuple(quantize or ()), dim=dim, rules=rules, query_length=_length(query_length),
        document_length=document_length, revision=revision, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle,
        least_fp32=least_fp32, least_quantized=least_quantized, force=force, bits=bits, centroids=centroids,
        documents=documents, pooling=None if pool_factor == 1 else Pooling(pool_factor, pool_method, pool_protected),
        device=chosen_device(device, device_id),
        dense=dense_values(dense or (), "--dense"), dense_dims=dense_counts(dense_dim or (), "--dense-dim"),
    )  # fmt: skip
    out = Output(json_output=json_output)
    if column and sample is None:
        raise UsageError("--column applies to the documents of --sample; give --sample")
    if cross_encoder:
        out.result(export_reranker(out, checkpoint, output, options, sample, column))
        return
    goal = None if candidates_goal is None else parse_goal(candidates_goal, "--candidates-goal")
    out.result(export_bundle(out, checkpoint, output, options, sample, column, goal))


def bundle(
    dim: Annotated[int, typer.Option("--dim", help="Numbers per row, up to 4,096.", parser=whole(1, 4096))],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Bundle folder to write; replaces a bundle that is there.", parser=folder_to_write),
    ],
    sample: Annotated[
        Path | None,
        typer.Option("--sample-vectors", help="Some of your documents with vectors; trains the codebook.", parser=path),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", help="Most rows of a passage, for example patches of a page.", parser=whole(4, 65_536))
    ] = 2048,
    query_rows: Annotated[int, typer.Option("--query-rows", help="Most rows of a query.", parser=whole(3, 1024))] = 64,
    raw: Annotated[bool, typer.Option("--raw", help="Rows are not normalised; use plain dot products.")] = False,
    source: Annotated[str, typer.Option("--source", help="Name of the model that makes the vectors.")] = "ready vectors",
    bits: Annotated[
        int | None,
        typer.Option("--bits", help="Bits per dimension of the codebook: 1, 2 or 4; default: 4.", parser=whole(1, 4)),
    ] = None,
    centroids: Annotated[
        int | None, typer.Option("--centroids", help="Centroids of the codebook; default: what suits the sample.", parser=COUNT)
    ] = None,
    json_output: Json = False,
) -> None:
    """Make a bundle without a model, for vectors that are made elsewhere."""
    from exporter.ready import ReadyOptions, make_ready_bundle
    from feeder.sources import open_sources
    from late_interaction.bundle import is_bundle_folder
    from late_interaction.bundle_cache import register_bundle

    options = ReadyOptions(dim, rows, query_rows, not raw, source, bits, centroids)
    check_folder(output, owned=is_bundle_folder)
    out = Output(json_output=json_output)
    made = make_ready_bundle(output, options, None if sample is None else open_sources([str(sample)])[0])
    register_bundle(made)
    out.say(f"bundle written to {output}")
    out.result({"bundle": str(output), "sha256": made.sha256, "dim": dim, "codebooks": sorted(made.manifest.codebooks)})


def _length(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or not 1 <= len(text) <= 6 or int(text) == 0:
        raise UsageError(f"--query-length must be a number above 0, or auto, got {text[:40]!r}")
    return int(text)


def train(
    data: Annotated[Path, typer.Argument(help="JSONL of examples, a collection, or bare documents.", parser=path)],
    model: Annotated[
        str, typer.Option("--model", help="Checkpoint or plain encoder to start from: folder or hub name.", parser=checkpoint)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to write.", parser=folder_to_write)],
    objective: Annotated[
        str | None,
        typer.Option("--objective", help="contrastive, cached-contrastive, n-way, kl, margin-mse or colbertv2."),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the data; default: 1.", parser=real(0, above=True))
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Most steps.", parser=COUNT)] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Queries per step; default: 32.", parser=COUNT)] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak learning rate; default: 3e-5.", parser=real(0, above=True))
    ] = None,
    document_length: Annotated[
        int | None,
        typer.Option("--document-length", help="Most tokens of a document during training; default: 128.", parser=COUNT),
    ] = None,
    negatives: Annotated[
        int | None, typer.Option("--negatives", help="Hard negatives per query; default: 1.", parser=NUMBER)
    ] = None,
    mine_by: Annotated[
        list[str] | None, typer.Option("--mine-by", help="How negatives are mined: bm25 or model. Repeatable.")
    ] = None,
    first_rank: Annotated[
        int | None, typer.Option("--first-rank", help="Best rank of a negative; default: 1.", parser=COUNT)
    ] = None,
    last_rank: Annotated[
        int | None, typer.Option("--last-rank", help="Worst rank of a negative; default: 30.", parser=COUNT)
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Least distance of a negative's score below the positive's.", parser=real(-math.inf)),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            "--ratio", help="Largest share of the positive's score that a negative may have.", parser=real(0, above=True)
        ),
    ] = None,
    remine: Annotated[bool, typer.Option("--remine", help="Mine again before each epoch.")] = False,
    keep_start: Annotated[
        float | None, typer.Option("--keep-start", help="Share of the initial weights to keep.", parser=real(0, 1))
    ] = None,
    pool_factor: Annotated[
        int | None, typer.Option("--pool-factor", help="Train through token pooling.", parser=whole(1, 6))
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option("--evaluate-every", help="Steps between evaluations; default: a tenth of all.", parser=COUNT)
    ] = None,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after this many evaluations without gain.", parser=COUNT)
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32, bf16 or fp16.")] = None,
    device: Annotated[str, typer.Option("--device", help="Device for training: auto, cpu, cuda or rocm.")] = "auto",
    device_id: DeviceNumber = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of all random choices.", parser=NUMBER)] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="Source of additional texts to mine from.", parser=path)
    ] = None,
    collection: Annotated[
        Path | None, typer.Option("--collection", help="Collection held out for evaluation and report.", parser=path)
    ] = None,
    hold_out: Annotated[
        float, typer.Option("--hold-out", help="Share of queries held out; 0 for none.", parser=real(0, 1))
    ] = 0.1,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Cross-encoder: folder or hub name.", parser=checkpoint)
    ] = None,
    dense: Annotated[
        str | None,
        typer.Option("--dense", help="Dense encoder to compare with; default: MiniLM if it is installed.", parser=checkpoint),
    ] = None,
    layout: Annotated[
        str, typer.Option("--layout", help="sentence-transformers, pylate or stanford.")
    ] = "sentence-transformers",
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Also export the result to this folder.", parser=folder_to_write)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Also write the report's plot here, as .png or .svg.", parser=PLOT)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run.")] = False,
    json_output: Json = False,
) -> None:
    """Train a checkpoint on examples or bare documents, with a before/after report."""
    require(("torch", "datasets"), "train", "training")
    from colbert_vespa.training import MiningSettings, TrainingSettings
    from colbert_vespa.training import train as train_model
    from colbert_vespa.training.saving import is_checkpoint_folder
    from colbert_vespa.training.scorers import cross_encoder

    check_folder(output, owned=is_checkpoint_folder)
    mining = _given(
        by=tuple(mine_by) if mine_by else None, first_rank=first_rank, last_rank=last_rank, margin=margin, ratio=ratio
    )
    settings = TrainingSettings(**_given(
        objective=objective, epochs=epochs, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
        document_length=document_length, negatives=negatives, keep_start=keep_start, patience=patience, precision=precision,
        seed=seed, remine=remine, pool_factor=pool_factor, evaluate_every=evaluate_every, mining=MiningSettings(**mining),
        device=str(chosen_device(device, device_id)),
    ))  # fmt: skip
    if not 0 <= hold_out < 1:
        raise UsageError(f"--hold-out must be from 0 to below 1, got {hold_out}")
    examples = _training_data(data, documents)
    held_out = _held_out(collection, hold_out, dense)
    scorer = None if teacher is None else cross_encoder(teacher)
    out = Output(json_output=json_output)
    with out.steps() as step:
        trained = train_model(
            model, examples, output, settings, hold_out=held_out, teacher=scorer, teacher_name=teacher or "", layout=layout,
            bundle=bundle, resume=resume, progress=step,
        )  # fmt: skip
    out.table(trained.data.rows())
    report = trained.report
    if report is not None:
        out.table(report.rows())
        if plot is not None:
            report.plot(plot)
            out.say(f"plot: {plot}")
    out.say(f"checkpoint written to {trained.checkpoint}; curves, report and what --resume needs: {trained.work}")
    out.result({
        "checkpoint": str(trained.checkpoint), "data": trained.data.to_json(),
        "report": None if report is None else report.to_json(),
    })  # fmt: skip


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None; the others keep their own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _training_data(data: Path, documents: Path | None) -> TrainingData:
    from colbert_vespa.training import TrainingData, read_training_data
    from colbert_vespa.training.data import text_of_document
    from feeder.sources import open_sources

    read = read_training_data(data)
    if documents is None:
        return read
    more = [text_of_document(d) for d in open_sources([str(documents)])[0] if not d.blank]
    return TrainingData(read.examples, [*read.documents, *more])


def _held_out(collection: Path | None, share: float, dense: str | None) -> HoldOut | None:
    """Return what is held out: a collection, or a share of the queries; None if the share is 0."""
    from colbert_vespa.evaluation.evaluating import Judged
    from colbert_vespa.training import HoldOut
    from exporter.hub import minilm_folder

    with contextlib.suppress(MissingDependency):
        dense = dense or str(minilm_folder())
    if collection is not None:
        return HoldOut(Judged.read(collection), dense=dense)
    return HoldOut(share=share, dense=dense) if share else None
