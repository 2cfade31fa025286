"""`train`: from a file of examples, a collection or bare documents to a checkpoint, with a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.demo import minilm_folder
from feeder.sources import open_sources
from late_interaction.errors import MissingDependency, UsageError
from late_interaction.files import check_folder

__all__ = ["TrainRequest", "run_training"]


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asks for. documents: a source of texts to mine negatives from. collection: to hold out instead of a
    share of the queries; teacher: a cross-encoder's folder or hub name; dense: a dense encoder to compare with, None for
    MiniLM where it is installed."""

    data: Path
    model: str
    output: Path
    documents: Path | None = None
    collection: Path | None = None
    hold_out: float = 0.1
    teacher: str | None = None
    dense: str | None = None
    layout: str = "sentence-transformers"
    bundle: Path | None = None
    plot: Path | None = None
    resume: bool = False


def run_training(out: Output, request: TrainRequest, changes: dict[str, object]) -> dict[str, object]:
    """changes: TrainingSettings by name, None for the default. Raises: as colbert_vespa.training.train."""
    from colbert_vespa.evaluation.collection import read_collection
    from colbert_vespa.evaluation.evaluating import Judged
    from colbert_vespa.training import HoldOut, TrainingData, TrainingSettings, read_training_data, train
    from colbert_vespa.training.data import text_of_document
    from colbert_vespa.training.saving import is_checkpoint_folder
    from colbert_vespa.training.scorers import cross_encoder

    check_folder(request.output, owned=is_checkpoint_folder)
    settings = TrainingSettings(**{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    if not 0 <= request.hold_out < 1:
        raise UsageError(f"--hold-out must be from 0 to below 1, got {request.hold_out}")
    data = read_training_data(request.data)
    if request.documents is not None:
        more = [text_of_document(d) for d in open_sources([str(request.documents)])[0] if not d.blank]
        data = TrainingData(data.examples, [*data.documents, *more])
    held, dense = None, request.dense or _minilm()
    if request.collection is not None:
        read = read_collection(request.collection)
        held = HoldOut(Judged.of(read.name, read.corpus, read.queries, read.qrels, None), dense=dense)
    elif request.hold_out:
        held = HoldOut(share=request.hold_out, dense=dense)
    teacher = None if request.teacher is None else cross_encoder(request.teacher)
    with out.steps() as step:
        trained = train(
            request.model, data, request.output, settings, hold_out=held, teacher=teacher,
            teacher_name=request.teacher or "", layout=request.layout, bundle=request.bundle, resume=request.resume,
            progress=step,
        )  # fmt: skip
    out.table(trained.data.rows())
    if trained.report is not None:
        out.table(trained.report.rows())
        if request.plot is not None:
            trained.report.plot(request.plot)
            out.say(f"plot: {request.plot}")
    out.say(f"checkpoint written to {trained.checkpoint}; curves, report and what --resume needs: {trained.work}")
    report = None if trained.report is None else trained.report.to_json()
    return {"checkpoint": str(trained.checkpoint), "data": trained.data.to_json(), "report": report}


def _minilm() -> Path | None:
    try:
        return minilm_folder()
    except MissingDependency:
        return None
