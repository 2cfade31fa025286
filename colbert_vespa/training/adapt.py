"""Adapt a model to unlabelled documents or a few examples, and denoised supervision."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from colbert_vespa.training.data import Example, RawExample, TrainingData, examples_of, text_of_document
from colbert_vespa.training.mining import MiningSettings
from colbert_vespa.training.pipeline import HoldOut, Trained, train
from colbert_vespa.training.scorers import Scorer
from colbert_vespa.training.settings import TrainingSettings
from colbert_vespa.training.synthetic import synthetic_examples
from late_interaction.documents import Document
from late_interaction.errors import UsageError
from late_interaction.progress import StepReport

__all__ = ["adapt", "distill"]

DOMAIN = TrainingSettings(objective="contrastive", negatives=1, keep_start=0.3)
DISTILLED = TrainingSettings(objective="colbertv2", negatives=4, batch_size=16, keep_start=0.3)
# few examples are seen several times, gently, and half of the start stays
FEW_SHOT = TrainingSettings(objective="contrastive", negatives=2, batch_size=16, epochs=8, learning_rate=2e-5, keep_start=0.5)


def adapt(
    model: str | Path,
    documents: Sequence[Document | str],
    output: str | Path,
    *,
    teacher: Scorer | None = None,
    teacher_name: str = "teacher",
    examples: Sequence[RawExample] | None = None,
    settings: TrainingSettings | None = None,
    hold_out: HoldOut | None = None,
    bundle: Path | None = None,
    resume: bool = False,
    progress: StepReport | None = None,
) -> Trained:
    """Adapt a model to the domain of some documents.

    With `examples`, train on these few pairs or triplets of the domain and on negatives mined among the documents. Without
    examples, make queries from the documents, and distil from the `teacher`, or train contrastively without a teacher.

    Args:
        model: Checkpoint or plain encoder, as for `train`.
        documents: Documents of the domain.
        output: Folder of the new checkpoint.
        teacher: Scores (query, document) pairs.
        teacher_name: Name under which the teacher's scores are kept.
        examples: Pairs or triplets of the domain.
        settings: Settings of the training; default: suited to the case.
        hold_out: What is held out for evaluation.
        bundle: Folder to export the result to.
        resume: Continue a stopped run.
        progress: Called with the progress of each step.

    Returns:
        The checkpoint and the reports.

    Raises:
        ColbertVespaError: As for `train`.
    """
    whole = [Document(str(n), "", d) if isinstance(d, str) else d for n, d in enumerate(documents)]
    texts = [text_of_document(document) for document in whole if not document.blank]
    if examples is not None:
        given, default = examples_of(examples), FEW_SHOT
    else:
        given, default = synthetic_examples(whole), DISTILLED if teacher is not None else DOMAIN
    if not given:
        raise UsageError("no queries can be made from these documents because they are too short; give examples")
    return train(
        model, TrainingData(given, texts), output, settings or default, hold_out=hold_out, teacher=teacher,
        teacher_name=teacher_name, bundle=bundle, resume=resume, progress=progress,
    )  # fmt: skip


def distill(
    model: str | Path,
    data: TrainingData,
    output: str | Path,
    teacher: Scorer,
    *,
    rounds: int = 2,
    settings: TrainingSettings | None = None,
    teacher_name: str = "teacher",
    hold_out: HoldOut | None = None,
    bundle: Path | None = None,
    resume: bool = False,
    progress: StepReport | None = None,
) -> Trained:
    """Distil a teacher into a model, with denoised supervision as in ColBERTv2.

    Each round indexes with the model, mines, scores with the teacher and distils; the next round starts with the resulting
    model. Scores are kept between rounds.

    Args:
        model: Checkpoint or plain encoder, as for `train`.
        data: Examples and documents.
        output: Folder of the new checkpoint.
        teacher: Scores (query, document) pairs.
        rounds: Number of rounds.
        settings: Settings of the training; default: suited to distillation.
        teacher_name: Name under which the teacher's scores are kept.
        hold_out: What is held out for evaluation.
        bundle: Folder to export the result to.
        resume: Continue a stopped run.
        progress: Called with the progress of each step.

    Returns:
        The checkpoint and the reports of the last round.

    Raises:
        ColbertVespaError: As for `train`.
    """
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1, got {rounds}")
    chosen = settings or dataclasses.replace(DISTILLED, mining=MiningSettings(by=("model",)))
    if not chosen.needs_scores:
        raise UsageError(f"objective {chosen.objective} does not use a teacher's scores; kl, margin-mse and colbertv2 do")
    plain = dataclasses.replace(data, examples=[Example(e.query, e.positive) for e in data.examples])
    output = Path(output)
    start: str | Path = model
    for number in range(1, rounds):
        between = output.with_name(f"{output.name}.round-{number}")
        if not (resume and between.is_dir()):
            train(start, plain, between, chosen, teacher=teacher, teacher_name=teacher_name, resume=resume, progress=progress)
        start = between
    return train(
        start, plain, output, chosen, hold_out=hold_out, teacher=teacher, teacher_name=teacher_name, bundle=bundle,
        resume=resume, progress=progress,
    )  # fmt: skip
