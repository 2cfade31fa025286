"""Teachers: anything that scores (query, document) pairs. Scores are stored on disk, so that a run can be resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np

from exporter.quiet import quiet
from late_interaction.errors import UsageError
from late_interaction.progress import CountReport

__all__ = ["CachedScorer", "Ensemble", "Scorer", "cross_encoder"]

Pairs: TypeAlias = "Sequence[tuple[str, str]]"
Scorer: TypeAlias = "Callable[[Pairs], Sequence[float]]"
BLOCK = 256  # pairs between two writes


def cross_encoder(name: str | Path, *, batch_size: int = 32, max_length: int = 512) -> Scorer:
    """Load a cross-encoder by folder or hub name, with sentence-transformers.

    Scores are logits, so that a softmax of them has the meaning the model was trained for.
    """
    import torch
    from sentence_transformers import CrossEncoder

    with quiet():
        model = CrossEncoder(str(name), max_length=max_length, model_kwargs={"use_safetensors": True})

    def score(pairs: Pairs) -> list[float]:
        logits = model.predict(
            [list(pair) for pair in pairs], batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return [float(value) for value in np.asarray(logits).reshape(len(pairs), -1)[:, -1]]

    return score


class CachedScorer:
    """A scorer that caches scores in a file.

    The file has one JSON line for each pair, appended block by block; a torn last line is ignored. Scores are kept under the
    name of the teacher and are not used for another name.
    """

    def __init__(self, scorer: Scorer, path: Path, *, name: str, progress: CountReport | None = None) -> None:
        self._scorer, self._path, self._name = scorer, path, name
        self._progress = progress or (lambda _done, _total: None)
        self._known: dict[str, float] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._load(path.read_bytes())

    def _load(self, data: bytes) -> None:
        whole, _, torn = data.rpartition(b"\n")
        for line in whole.splitlines():
            key, score = json.loads(line)
            self._known[key] = score
        if torn:
            with self._path.open("r+b") as file:
                file.truncate(len(data) - len(torn))

    def __call__(self, pairs: Pairs) -> list[float]:
        """Return the score of each pair.

        Raises:
            UsageError: If the teacher returns another number of scores, or a score that is not finite.
        """
        keys = [hashlib.sha256(json.dumps([self._name, *pair]).encode()).hexdigest()[:32] for pair in pairs]
        missing = [n for n, key in enumerate(keys) if key not in self._known]
        with self._path.open("a", encoding="utf-8") as file:
            for first in range(0, len(missing), BLOCK):
                part = missing[first : first + BLOCK]
                self._write(file, [keys[n] for n in part], [pairs[n] for n in part])
                if len(missing) > BLOCK:  # a few of one query, while negatives are mined, are no news
                    self._progress(first + len(part), len(missing))
        return [self._known[key] for key in keys]

    def _write(self, file: IO[str], keys: Sequence[str], pairs: Pairs) -> None:
        scores = [float(value) for value in self._scorer(pairs)]
        if len(scores) != len(pairs) or not np.isfinite(scores).all():
            raise UsageError(f"the teacher gave {len(scores)} scores for {len(pairs)} pairs, or one that is not finite")
        self._known.update(zip(keys, scores, strict=True))
        file.writelines(json.dumps(item) + "\n" for item in zip(keys, scores, strict=True))
        file.flush()


@dataclass(frozen=True)
class _ScaledScorer:
    score: Scorer
    weight: float
    mean: float
    spread: float


class Ensemble:
    """The weighted sum of several scorers, each scaled to mean 0 and spread 1 on `sample`, so that none dominates."""

    def __init__(self, scorers: Sequence[tuple[Scorer, float]], sample: Pairs) -> None:
        """Bring the scores of each scorer to one scale on `sample`.

        Raises:
            UsageError: If there are no scorers or no sample.
        """
        if not scorers or not sample:
            raise UsageError("an ensemble needs scorers, and pairs to bring their scores to one scale")
        self._parts = []
        for scorer, weight in scorers:
            scores = np.asarray(scorer(sample), np.float64)
            self._parts.append(_ScaledScorer(scorer, weight, float(scores.mean()), float(scores.std()) or 1.0))

    def __call__(self, pairs: Pairs) -> list[float]:
        """Return the weighted sum of the scores of each pair."""
        total = np.zeros(len(pairs))
        for part in self._parts:
            total += part.weight * (np.asarray(part.score(pairs), np.float64) - part.mean) / part.spread
        return [float(value) for value in total]
