"""Run sentence-transformers' trainer: loss, evaluation, checkpoints, resuming, early stopping."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import disable_progress_bars
from sentence_transformers import MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorInformationRetrievalEvaluator
from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from colbert_vespa.evaluation.evaluating import Judged
from colbert_vespa.training.data import Example
from colbert_vespa.training.loading import dataset_of
from colbert_vespa.training.objectives import make_loss
from colbert_vespa.training.settings import TrainingSettings
from exporter.quiet import quiet
from late_interaction.devices import Device
from late_interaction.documents import passage_text
from late_interaction.errors import UsageError
from late_interaction.files import atomic_write, claim_folder, is_claimed, remove_folder
from late_interaction.progress import StepReport

__all__ = ["RunResult", "run_trainer"]

Remine = Callable[[Any, int], Sequence[Example]]
EVALUATOR = "held-out"
METRICS = {
    name: f"eval_{EVALUATOR}_maxsim_{name.replace('_at_', '@')}" for name in ("ndcg_at_10", "mrr_at_10", "recall_at_100")
}
METRIC = METRICS["ndcg_at_10"]
COMPLETE = "complete"
LOGS = 50  # lines of the loss curve


@dataclass(frozen=True)
class RunResult:
    """Result of a run of the trainer.

    Attributes:
        losses: Training loss by step.
        evaluations: Means by metric, by step; step 0 is the start.
    """

    losses: tuple[tuple[int, float], ...]
    evaluations: tuple[tuple[int, Mapping[str, float]], ...]
    best_step: int | None


def run_trainer(
    model: Any,
    examples: Sequence[Example],
    settings: TrainingSettings,
    folder: Path,
    *,
    held_out: Judged | None = None,
    beside: Mapping[str, float] | None = None,
    remine: Remine | None = None,
    resume: bool = False,
    progress: StepReport | None = None,
) -> RunResult:
    """Train `model` in place; afterwards it has the weights of the best evaluation.

    Args:
        model: A MultiVectorEncoder.
        examples: Examples of the first epoch.
        settings: Settings of the training.
        folder: Folder of checkpoints, TensorBoard's events and the run's description.
        held_out: Collection to evaluate on.
        beside: BM25's means on `held_out`, reported with each evaluation.
        remine: Returns the examples of the next epoch, mined with the model in its current state.
        resume: Continue from the last checkpoint in `folder`, if there is one, with the same data and settings.
        progress: Called with the progress of each step.

    Raises:
        UsageError: If a run is resumed with other data or settings, or the precision needs a GPU.
    """
    on_processor = trains_on_processor(settings)
    if settings.precision == "fp16" and (on_processor or not torch.cuda.is_available()):
        raise UsageError("precision fp16 needs a GPU; use bf16 or fp32")
    disable_progress_bars()
    model.model_card_data.widget = [{"text": ""}]  # else examples are looked for, with a bar of their own; no card is written
    claim_folder(folder, "training run")
    checkpoint = _checkpoint(folder, examples, settings, resume)
    total = _steps(len(examples), settings)
    evaluator = None if held_out is None else _evaluator(held_out)
    frozen = _freeze(model) if settings.frozen else []
    if settings.pool_factor > 1:
        model.append(HierarchicalTokenPooling(settings.pool_factor))
    dataset = dataset_of(examples, settings.negatives, scored=settings.needs_scores)
    callbacks: list[TrainerCallback] = [
        _Complete(folder),
        _Report(progress or (lambda _what, _done, _total: None), total, beside),
    ]
    if settings.patience and evaluator is not None:
        callbacks.append(EarlyStoppingCallback(settings.patience))
    if remine is not None:
        table = _Remined(model, dataset, examples, remine, settings.negatives)
        dataset = table.dataset
        callbacks.append(table)
    try:
        with quiet():
            trainer = MultiVectorEncoderTrainer(
                model=model, args=_arguments(settings, folder, total, evaluator is not None, on_processor),
                train_dataset=dataset, loss=make_loss(model, settings), evaluator=evaluator, callbacks=callbacks,
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)  # prints on stdout, which is the result's
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        if settings.pool_factor > 1:
            del model[len(model) - 1]
    model.eval()
    return _result(trainer)


def trains_on_processor(settings: TrainingSettings) -> bool:
    """Tell whether training runs on the CPU; make torch see only the chosen GPU, if one is named.

    Raises:
        UsageError: If torch does not have the device.
    """
    device = Device.of(settings.device)
    if device.name == "cpu":
        return True
    if device.name == "auto":
        return settings.precision == "bf16" and not torch.cuda.is_available()
    if device.number is not None:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            raise UsageError(f"device {device}: torch already uses its GPUs in this process; train in a new process")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device.number)  # torch for ROCm reads it as well
    if not torch.cuda.is_available() or (torch.version.hip is not None) != (device.name == "rocm"):
        raise UsageError(f"device {device}: the installed torch {torch.__version__} finds no such GPU")
    return False


def _arguments(settings: TrainingSettings, folder: Path, total: int, evaluated: bool, on_processor: bool) -> Any:
    every = settings.evaluate_every or max(1, total // 10)
    strategy = "steps" if evaluated else "no"
    return MultiVectorEncoderTrainingArguments(
        output_dir=str(folder), num_train_epochs=settings.epochs, max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size, gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, warmup_steps=round(settings.warmup * total),
        max_length={"query": settings.query_length, "document": settings.document_length},
        bf16=settings.precision == "bf16", fp16=settings.precision == "fp16",
        use_cpu=on_processor, seed=settings.seed, data_seed=settings.seed,
        batch_sampler="no_duplicates", logging_steps=max(1, total // LOGS), save_strategy="steps", save_steps=every,
        eval_strategy=strategy, eval_steps=every, eval_on_start=evaluated, save_total_limit=2,
        load_best_model_at_end=evaluated, metric_for_best_model=METRIC if evaluated else None, greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        report_to=["tensorboard"], disable_tqdm=True, dataloader_pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def _steps(examples: int, settings: TrainingSettings) -> int:
    """Return the number of steps of the whole run."""
    a_step = settings.batch_size * settings.accumulate
    return settings.steps if settings.steps > 0 else max(1, math.ceil(settings.epochs * math.ceil(examples / a_step)))


def _checkpoint(folder: Path, examples: Sequence[Example], settings: TrainingSettings, resume: bool) -> str | None:
    """Return the checkpoint to resume from, and write run.json, which identifies the run."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode())
    description = json.dumps({"settings": settings.to_json(), "examples": digest.hexdigest()}, indent=1)
    file = folder / "run.json"
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if not (resume and (checkpoint / COMPLETE).is_file()):  # of another run, or torn by a kill
            remove_folder(checkpoint, owned=lambda checkpoint: is_claimed(checkpoint.parent, "training run"))
    last: str | None = get_last_checkpoint(str(folder))
    if last is not None and file.is_file() and file.read_bytes() != description.encode():
        raise UsageError(f"the run in {folder} had other data or settings; give the same ones, or omit --resume")
    atomic_write(file, description.encode())
    return last


def _freeze(model: Any) -> list[Any]:
    embeddings = [p for p in model[0].model.get_input_embeddings().parameters() if p.requires_grad]
    for parameter in embeddings:
        parameter.requires_grad_(False)
    return embeddings


def _evaluator(held_out: Judged) -> Any:
    searched = {document.id for document in held_out.documents}
    relevant = {
        q.id: {id_ for id_, value in held_out.qrels.get(q.id, {}).items() if value > 0 and id_ in searched}
        for q in held_out.queries
    }
    return MultiVectorInformationRetrievalEvaluator(
        {q.id: q.text for q in held_out.queries}, {d.id: passage_text(d.title, d.text) for d in held_out.documents}, relevant,
        name=EVALUATOR, ndcg_at_k=[10], mrr_at_k=[10], precision_recall_at_k=[10, 100], accuracy_at_k=[10], map_at_k=[10],
        write_csv=False, batch_size=16,
    )  # fmt: skip


class _Complete(TrainerCallback):  # type: ignore[misc]
    """Marks complete checkpoints, because a kill can leave one with missing files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            (self._folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}" / COMPLETE).touch()


class _Report(TrainerCallback):  # type: ignore[misc]
    def __init__(self, progress: StepReport, total: int, beside: Mapping[str, float] | None) -> None:
        self._progress, self._total, self._beside = progress, total, beside

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress("training", int(state.global_step), self._total)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the last evaluation, with those of the start and BM25."""
        measured = [line[METRIC] for line in state.log_history if METRIC in line]
        if measured:
            keyword = "" if self._beside is None else f", BM25 {self._beside['ndcg_at_10']:.4f}"
            shown = f"held-out nDCG@10 {measured[-1]:.4f} at step {state.global_step} (start {measured[0]:.4f}{keyword})"
            self._progress(shown, int(state.global_step), self._total)


class _Remined(TrainerCallback):  # type: ignore[misc]
    """The trainer's dataset, whose negatives are looked up in the examples of the epoch."""

    def __init__(self, model: Any, dataset: Any, examples: Sequence[Example], remine: Remine, negatives: int) -> None:
        self._model, self._remine, self._negatives = model, remine, negatives
        self._examples = list(examples)
        numbered = dataset.add_column("number", list(range(len(examples))))
        self._columns = list(dataset.column_names)
        self.dataset = numbered.select_columns([*self._columns, "number"]).with_transform(self._rows)

    def _rows(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = {name: batch[name] for name in self._columns}
        for n in range(self._negatives):
            rows[f"negative_{n}"] = [self._examples[number].negatives[n] for number in batch["number"]]
        if "label" in self._columns:
            rows["label"] = [list(self._examples[number].scores) for number in batch["number"]]
        return rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        epoch = int(state.epoch or 0)
        if epoch > 0:  # the first epoch's were mined before the run
            training = self._model.training
            self._model.eval()
            mined = {(e.query, e.positive): e for e in self._remine(self._model, epoch)}
            # an example for which nothing was mined this time keeps what it had
            self._examples = [mined.get((e.query, e.positive), e) for e in self._examples]
            self._model.train(training)


def _result(trainer: Any) -> RunResult:
    history = trainer.state.log_history
    best = trainer.state.best_model_checkpoint
    return RunResult(
        losses=tuple((int(line["step"]), float(line["loss"])) for line in history if "loss" in line),
        evaluations=tuple(
            (int(line["step"]), {name: float(line[key]) for name, key in METRICS.items()}) for line in history if METRIC in line
        ),
        best_step=None if best is None else int(str(best).rpartition("-")[2]),
    )
