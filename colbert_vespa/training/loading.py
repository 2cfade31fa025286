"""Load the model that training starts from, and build the tables that sentence-transformers' trainer reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colbert_vespa.training.data import Example
from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_checkpoint
from exporter.plain import make_plain_checkpoint
from exporter.quiet import quiet
from late_interaction.errors import UsageError
from late_interaction.extras import require

__all__ = ["dataset_of", "load_start", "require_training"]

PLAIN_SAMPLE = 4_000  # texts that the projection of a plain encoder is fitted on


def require_training() -> None:
    """Check that the extra for training is installed.

    Raises:
        MissingDependency: If it is not.
    """
    require(("torch", "sentence_transformers", "datasets", "accelerate", "tensorboard"), "train", "training")


def load_start(model: str | Path, texts: Sequence[str], work: Path, *, dim: int = 128) -> tuple[Any, Path]:
    """Load the model that training starts from.

    A plain encoder gets a projection to `dim`, which is fitted once to some of `texts` and kept below `work`.

    Args:
        model: Checkpoint or plain encoder, folder or hub name.
        texts: Texts to fit a projection to.
        work: Folder of the run.
        dim: Dimensions of the projection.

    Returns:
        The MultiVectorEncoder and its folder.

    Raises:
        CheckpointError: If the model cannot be loaded.
        MissingDependency: If an extra is not installed.
    """
    require_training()
    folder = scan_checkpoint(find_checkpoint(model, revision=None, local_files_only=False))
    if folder.layout == "plain":
        fitted = work / "start"
        if not fitted.is_dir():
            step = max(1, len(texts) // PLAIN_SAMPLE)
            make_plain_checkpoint(folder, fitted, list(texts[::step]), dim=dim)
        folder = scan_checkpoint(fitted)
    return load_checkpoint(folder).model, folder.path


def dataset_of(examples: Sequence[Example], negatives: int, *, scored: bool) -> Any:
    """Return a `datasets.Dataset` with query, positive, negative_0 ..., and, if `scored`, label: the teacher's scores.

    Raises:
        UsageError: If an example lacks a negative or a score.
    """
    from datasets import Dataset

    short = next((e for e in examples if len(e.negatives) < negatives), None)
    if short is not None:
        raise UsageError(
            f"{len(short.negatives)} negatives of {short.query!r:.60}, {negatives} needed; mine them, or request fewer"
        )
    columns: dict[str, list[Any]] = {"query": [e.query for e in examples], "positive": [e.positive for e in examples]}
    for n in range(negatives):
        columns[f"negative_{n}"] = [example.negatives[n] for example in examples]
    if scored:
        bare = next((e for e in examples if len(e.scores) <= negatives), None)
        if bare is not None:
            raise UsageError(f"no teacher's scores for {bare.query!r:.60}: give a teacher, or an objective without one")
        columns["label"] = [list(example.scores[: negatives + 1]) for example in examples]
    with quiet():
        return Dataset.from_dict(columns)
