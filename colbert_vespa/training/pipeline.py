"""`train`: clean data, mine negatives, score with the teacher, train, evaluate and save."""

from __future__ import annotations

import contextlib
import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbert_vespa.evaluation.evaluating import Judged
from colbert_vespa.training.data import TrainingData, judged_examples, split_by_query, text_of_document
from colbert_vespa.training.loading import load_start, require_training
from colbert_vespa.training.measuring import (
    MeasuredModel,
    compare,
    dense_rankings,
    held_out_of,
    keyword_rankings,
    measure,
    model_rankings,
    smaller,
)
from colbert_vespa.training.preparing import Preparer
from colbert_vespa.training.quality import DataReport, QualitySettings, clean
from colbert_vespa.training.report import TrainingReport
from colbert_vespa.training.saving import is_checkpoint_folder, save_checkpoint
from colbert_vespa.training.scorers import CachedScorer, Scorer
from colbert_vespa.training.settings import TrainingSettings
from exporter import ExportOptions, export
from late_interaction.addresses import as_path
from late_interaction.bundle import is_bundle_folder
from late_interaction.errors import MissingDependency, UsageError
from late_interaction.files import check_apart, check_folder, claim_folder, sha256_file
from late_interaction.progress import StepReport

__all__ = ["HoldOut", "Trained", "train"]


@dataclass(frozen=True)
class HoldOut:
    """What is held out of the training data for evaluation.

    Attributes:
        judged: Collection to evaluate on, instead of held-out queries.
        share: Share of the training queries that are held out if `judged` is not given.
        queries: Queries of the part that is evaluated during training. The final report is over all.
        documents: Documents of that part.
        dense: Dense encoder to compare with.
    """

    judged: Judged | None = None
    share: float = 0.1
    queries: int = 200
    documents: int = 1_000
    dense: str | Path | None = None


@dataclass(frozen=True)
class Trained:
    """Result of a training run.

    Attributes:
        checkpoint: Folder of the new checkpoint.
        work: Folder with the state of the run, for inspection and for resuming.
        report: Evaluation; None if nothing was held out.
    """

    checkpoint: Path
    work: Path
    data: DataReport
    report: TrainingReport | None


def train(
    model: str | Path,
    data: TrainingData,
    output: str | Path,
    settings: TrainingSettings | None = None,
    *,
    hold_out: HoldOut | None = None,
    teacher: Scorer | None = None,
    teacher_name: str = "teacher",
    quality: QualitySettings | None = None,
    dim: int = 128,
    layout: str = "sentence-transformers",
    bundle: Path | None = None,
    resume: bool = False,
    progress: StepReport | None = None,
) -> Trained:
    """Train a late-interaction model.

    Checkpoints, mined negatives and scores of the run are in the folder OUTPUT.run.

    Args:
        model: Any checkpoint that `export` takes, or a plain encoder.
        data: Examples and documents.
        output: Folder of the new checkpoint.
        settings: Settings of the training.
        hold_out: What is held out for evaluation.
        teacher: Scores (query, document) pairs, for distillation and for the filter of false negatives.
        teacher_name: Name under which the teacher's scores are kept.
        quality: Limits for the examples that are kept.
        dim: Dimensions of the projection that a plain encoder gets.
        layout: Layout of the new checkpoint.
        bundle: Folder to export the result to.
        resume: Continue a stopped run.
        progress: Called with the progress of each step.

    Returns:
        The checkpoint and the reports.

    Raises:
        CollectionError: If no usable example remains.
        CheckpointError: If the model cannot be loaded.
        UsageError: If arguments or settings are not valid.
        MissingDependency: If an extra is not installed.
    """
    require_training()
    from colbert_vespa.training.running import run_trainer

    settings, output = settings or TrainingSettings(), Path(output)
    work = output.with_name(output.name + ".run")
    _claim_folders(model, output, work, bundle)
    step = progress or (lambda _what, _done, _total: None)
    training, judged = _divide(data, hold_out, settings.seed)
    training, data_report = clean(training, quality, test=None if judged is None else _as_data(judged))
    cached = None
    if teacher is not None:
        cached = CachedScorer(
            teacher, work / "scores.jsonl", name=teacher_name, progress=lambda done, total: step("teacher", done, total)
        )
    started = time.perf_counter()
    _seed(settings.seed)
    loaded, folder = load_start(model, training.pool, work, dim=dim)
    before = None if judged is None else _measured("start", loaded, judged, step)
    start = copy.deepcopy(loaded.state_dict()) if settings.keep_start else None
    preparer = Preparer(training, settings, cached, f"{_fingerprint(folder)} {teacher_name if teacher else ''}", work, step)
    if not resume:
        preparer.forget()
    examples = preparer.prepare(folder, "start")
    if missing := len(training.examples) - len(examples):
        data_report.dropped["too few negatives"] += missing
    small, keyword = None, None
    if judged is not None and hold_out is not None:
        small = smaller(judged, hold_out.queries, hold_out.documents, settings.seed)
        keyword = measure("BM25", keyword_rankings(small), small).means
    result = run_trainer(
        loaded, examples, settings, work / "trainer", held_out=small, beside=keyword,
        remine=preparer.again if settings.remine else None, resume=resume, progress=step,
    )  # fmt: skip
    if start is not None:
        _average(loaded, start, settings.keep_start)
    seconds = time.perf_counter() - started
    save_checkpoint(loaded, output, layout)
    if bundle is not None:
        export(output, bundle, ExportOptions(quantize=("int8",), sample=training.pool[:500]))
    report = None
    if judged is not None and before is not None:
        trained = _measured("trained", loaded, judged, step)
        others = [before, *_baselines(judged, hold_out)]
        report = TrainingReport(
            judged.name, len(trained.by_query), len(judged.documents), {m.name: m.means for m in (trained, *others)},
            [compare(trained, other) for other in others], result.losses, result.evaluations, keyword, result.best_step,
            seconds, data_report.to_json(),
        )  # fmt: skip
        report.write(work)
        with contextlib.suppress(MissingDependency):
            report.plot(work / "report.png")
    return Trained(output, work, data_report, report)


def _claim_folders(model: str | Path, output: Path, work: Path, bundle: Path | None) -> None:
    """Check and claim the folders; UsageError if one may not be written or contains an input, or the model has no name."""
    start = as_path(model, "model")
    check_folder(output, owned=is_checkpoint_folder)
    if bundle is not None:
        check_folder(bundle, owned=is_bundle_folder)
    read = [("model", start)] if start.exists() else []
    check_apart([("output", output), ("work folder", work), *([("bundle", bundle)] if bundle else [])], read)
    claim_folder(work, "training run")


def _baselines(judged: Judged, hold_out: HoldOut | None) -> list[MeasuredModel]:
    measured = [measure("BM25", keyword_rankings(judged), judged)]
    if hold_out is not None and hold_out.dense is not None:
        measured.append(measure("dense", dense_rankings(hold_out.dense, judged), judged))
    return measured


def _measured(name: str, model: Any, judged: Judged, step: StepReport) -> MeasuredModel:
    rankings = model_rankings(model, judged, progress=lambda done, total: step(f"measuring {name}", done, total))
    return measure(name, rankings, judged)


def _divide(data: TrainingData, hold_out: HoldOut | None, seed: int) -> tuple[TrainingData, Judged | None]:
    if hold_out is None:
        return data, None
    if hold_out.judged is not None:
        return data, hold_out.judged
    if len({example.query for example in data.examples}) < 2:
        raise UsageError("one query cannot be split into training and held-out; give more, or hold nothing out")
    training, outside = split_by_query(data, hold_out.share, seed)
    # rivals of the held-out positives are the documents that are trained on as well, as in use; the positives are not
    return training, held_out_of("held out", outside, training.pool)


def _seed(seed: int) -> None:
    """Set the seed before loading, which draws unused weights that a checkpoint lacks, such as BERT's pooler."""
    from transformers import set_seed

    set_seed(seed)


def _fingerprint(folder: Path) -> str:
    """Return a fingerprint of a checkpoint's weights."""
    return " ".join(sha256_file(file)[:16] for file in sorted(folder.rglob("*.safetensors")))


def _as_data(judged: Judged) -> TrainingData:
    """Return queries and relevant documents of the test set as data, which must not be trained on."""
    texts = {document.id: text_of_document(document) for document in judged.documents}
    return TrainingData(judged_examples(texts, judged.queries, judged.qrels))


def _average(model: Any, start: dict[str, Any], share: float) -> None:
    """Average the model's weights in place: `share` of the start's, the rest of its own."""
    mixed = {
        name: value if not value.is_floating_point() else share * start[name].to(value) + (1 - share) * value
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(mixed)
