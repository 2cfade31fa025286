"""Weights of candidates `hybrid` from judgements: recorded scores of every query, fused in many ways, cross-validated."""

from __future__ import annotations

import importlib
import itertools
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colbert_vespa.evaluation.collection import Qrels
from colbert_vespa.evaluation.evaluating import Judged
from colbert_vespa.evaluation.metrics import Metric
from colbert_vespa.evaluation.significance import PairedDifference, paired
from late_interaction.errors import CollectionError, SettingsError
from late_interaction.files import atomic_write
from late_interaction.progress import StepReport
from query import Client
from query.fusion import fused
from vespa_app.settings.application_settings import FUSIONS

__all__ = ["FittedWeights", "RecordedScores", "Way", "fit_weights", "record_scores", "write_weights"]

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
SHARES = 10  # weights are tenths, and add up to 1
FOLDS, LEAST_QUERIES, SEED = 5, 20, 13
CHANCE = 0.05
DEPTH = 200  # hits of a query whose scores are recorded

RecordedScores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Query id -> name of the score (maxsim, bm25, dense) -> document id -> score."""


@dataclass(frozen=True, slots=True)
class Way:
    """How scores are fused."""

    weights: Mapping[str, float]
    fusion: str


@dataclass(frozen=True)
class FittedWeights:
    """fitted: the way that is best on all queries. now: the one it is compared with, and its mean. held_out: mean of queries
    that had no part in choosing the way they were measured with. difference: of these less `now`."""

    metric: str
    queries: int
    fitted: Way
    now: Way
    before: float
    held_out: float
    difference: PairedDifference

    @property
    def recommended(self) -> bool:
        """Whether the gain is above chance."""
        chance = self.difference.randomisation
        return self.difference.difference > 0 and chance is not None and chance <= CHANCE

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "recommended": self.recommended}


def record_scores(client: Client, judged: Judged, now: Way, step: StepReport, *, dense: str | None = None) -> RecordedScores:
    """What each of the scores named in `now` gives to the hits of every query. dense: name of the dense model."""
    recorded: dict[str, dict[str, dict[str, float]]] = {}
    alike = dict.fromkeys(now.weights, 1.0)
    for place, query in enumerate(judged.queries):
        found = client.search(
            query.asked, DEPTH, candidates="hybrid", weights=alike, fusion=now.fusion, rerank=DEPTH, group=True, dense=dense
        )
        own: dict[str, dict[str, float]] = {name: {} for name in alike}
        for hit in found.hits:
            for name in alike:
                if name in hit.stages:
                    own[name].setdefault(hit.id, hit.stages[name])
        recorded[query.id] = own
        step("queries", place + 1, len(judged.queries))
    return recorded


def fit_weights(recorded: RecordedScores, qrels: Qrels, now: Way, metric: Metric) -> FittedWeights:
    """The best of all tenths of weights and of both fusions, by cross-validation in five folds of the queries.

    Raises: CollectionError where there are fewer than 20 queries.
    """
    queries = sorted(recorded)
    if len(queries) < LEAST_QUERIES:
        raise CollectionError(f"{len(queries)} judged queries are too few to fit weights: at least {LEAST_QUERIES}")
    ways = [now, *(way for way in _ways(list(now.weights)) if way != now)]
    values = np.array([_values(recorded, qrels, queries, way, metric) for way in ways])  # [ways, queries]
    held_out = np.empty(len(queries))
    places = list(range(len(queries)))
    random.Random(SEED).shuffle(places)
    for fold in (places[start::FOLDS] for start in range(FOLDS)):
        others = np.setdiff1d(places, fold)
        held_out[fold] = values[values[:, others].mean(axis=1).argmax(), fold]
    return FittedWeights(
        metric.key, len(queries), ways[int(values.mean(axis=1).argmax())], now, float(values[0].mean()),
        float(held_out.mean()), paired(held_out.tolist(), values[0].tolist()),
    )  # fmt: skip


def _ways(names: Sequence[str]) -> Iterator[Way]:
    for shares in itertools.product(range(SHARES + 1), repeat=len(names)):
        if sum(shares) == SHARES:
            weights = {name: share / SHARES for name, share in zip(names, shares, strict=True) if share}
            for fusion in FUSIONS:
                yield Way(weights, fusion)


def _values(recorded: RecordedScores, qrels: Qrels, queries: Sequence[str], way: Way, metric: Metric) -> list[float]:
    rankings = {}
    for query in queries:
        scores = fused(recorded[query], way.weights, way.fusion)
        rankings[query] = sorted(scores, key=lambda id_: (-scores[id_], id_))[: metric.k]
    return metric.values(rankings, qrels, queries)


def write_weights(path: Path, way: Way) -> None:
    """Puts `fusion` and the table `[weights]` into the application's settings, whose other lines stay as they are.

    Raises: SettingsError where the file cannot be read, or has either already.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        before = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    if taken := [name for name in ("fusion", "weights") if name in before]:
        raise SettingsError(f"{path} has {taken[0]!r} already: remove it, or take the fitted weights over by hand")
    table = "".join(f"{name} = {weight:g}\n" for name, weight in way.weights.items())
    made = f'fusion = "{way.fusion}"\n{text}{"" if text.endswith(chr(10)) or not text else chr(10)}\n[weights]\n{table}'
    if tomllib.loads(made) != before | {"fusion": way.fusion, "weights": dict(way.weights)}:
        raise SettingsError(f"{path} cannot take the weights as they are: write fusion and [weights] into it by hand")
    atomic_write(path, made.encode())
