"""Prepare examples for a model: mine negatives, and score them with the teacher."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from colbert_vespa.training.data import Example, TrainingData
from colbert_vespa.training.mining import Bm25Ranker, ModelRanker, Ranker, mine, mined_once
from colbert_vespa.training.saving import save_checkpoint
from colbert_vespa.training.scorers import CachedScorer
from colbert_vespa.training.settings import TrainingSettings
from exporter import ExportOptions, export
from late_interaction.errors import UsageError
from late_interaction.files import remove_file
from late_interaction.progress import StepReport

__all__ = ["Preparer"]


class Preparer:
    """Examples with their negatives and scores, of the model in a folder."""

    def __init__(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        teacher: CachedScorer | None,
        models: str,
        work: Path,
        step: StepReport,
    ) -> None:
        """Set up the preparation; `models` identifies start and teacher."""
        self._data, self._settings, self._teacher, self._models = data, settings, teacher, models
        self._mined, self._work, self._step = work / "mined", work, step

    def forget(self) -> None:
        """Remove the negatives that an earlier run mined in its epochs; those of the start stay."""
        for file in self._mined.glob("epoch-*.jsonl"):
            remove_file(file)

    def prepare(self, model: Path, name: str) -> list[Example]:
        """Return the examples with negatives, without those for which too few negatives were found.

        Args:
            model: Folder of the model to mine with.
            name: Name of the model's state, such as its epoch. A resumed run reads again what was mined under this name.

        Raises:
            UsageError: If no example remains.
        """
        settings = self._settings
        examples: Sequence[Example] = self._data.examples
        if settings.negatives:
            examples = mined_once(
                self._mined / f"{name}.jsonl", self._data, settings.mining, settings.negatives, self._models,
                lambda: self._mine(model, name),
            )  # fmt: skip
            examples = [example for example in examples if len(example.negatives) >= settings.negatives]
            if not examples:
                raise UsageError(
                    f"no query has {settings.negatives} negatives; give more documents, request fewer, or mine from later ranks"
                )
        if settings.needs_scores and any(len(e.scores) <= settings.negatives for e in examples):
            examples = self._scored(examples)
        return list(examples)

    def _mine(self, model: Path, name: str) -> list[Example]:
        with self._rankers(model, name) as rankers:
            return mine(
                self._data, rankers, self._settings.mining, self._settings.negatives, teacher=self._teacher,
                progress=lambda done, all_: self._step("mining", done, all_),
            )  # fmt: skip

    def again(self, model: Any, epoch: int) -> list[Example]:
        """Prepare examples with the MultiVectorEncoder of a running epoch."""
        with tempfile.TemporaryDirectory(prefix="epoch-", dir=self._work) as scratch:
            folder = Path(scratch) / "checkpoint"
            save_checkpoint(model, folder)
            return self.prepare(folder, f"epoch-{epoch}")

    def _scored(self, examples: Sequence[Example]) -> list[Example]:
        if self._teacher is None:
            raise UsageError(
                f"objective {self._settings.objective} needs a teacher's scores, but the data has none; give a teacher"
            )
        pairs = [(example.query, text) for example in examples for text in example.documents]
        scores = iter(self._teacher(pairs))
        return [dataclasses.replace(e, scores=tuple(next(scores) for _ in e.documents)) for e in examples]

    @contextlib.contextmanager
    def _rankers(self, model: Path, name: str) -> Iterator[list[Ranker]]:
        """Yield the rankers; none if every example has enough negatives."""
        if all(len(example.negatives) >= self._settings.negatives for example in self._data.examples):
            yield []
            return
        pool = self._data.pool
        rankers: list[Ranker] = [Bm25Ranker(pool)] if "bm25" in self._settings.mining.by else []
        if "model" not in self._settings.mining.by:
            yield rankers
            return
        with tempfile.TemporaryDirectory(prefix="index-", dir=self._work) as scratch:
            self._step(f"indexing with the model ({name})", 0, 1)
            export(model, Path(scratch) / "bundle", ExportOptions(document_length=self._settings.document_length))
            ranker = ModelRanker(Path(scratch) / "bundle", pool, Path(scratch) / "index")
            try:
                yield [*rankers, ranker]
            finally:
                ranker.close()
