"""Fit the weights of candidates `hybrid` to judgements: recorded scores of every query, fused in many ways, cross-validated."""

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
from numpy.typing import NDArray

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
DEPTH = 200  # passages of a query whose scores are recorded

RecordedScores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Query id -> name of the score (maxsim, bm25, dense) -> document id -> score."""


@dataclass(frozen=True, slots=True)
class Way:
    """How scores are fused."""

    weights: Mapping[str, float]
    fusion: str


@dataclass(frozen=True)
class FittedWeights:
    """Weights chosen by cross-validation.

    Attributes:
        fitted: The way that is best over all queries.
        now: The way it is compared with.
        before: Mean of `now` over all queries.
        held_out: Mean over queries that had no part in choosing the way they are measured with.
        difference: Difference of the held-out values to those of `now`.
        chosen: By query id, the way chosen by the queries of the other folds.
    """

    metric: str
    queries: int
    fitted: Way
    now: Way
    before: float
    held_out: float
    difference: PairedDifference
    chosen: Mapping[str, Way]

    @property
    def recommended(self) -> bool:
        """Return whether the gain is more than chance."""
        chance = self.difference.randomisation
        return self.difference.difference > 0 and chance is not None and chance <= CHANCE

    def to_json(self) -> dict[str, object]:
        """Return everything but `chosen`, as it is written to JSON."""
        return {name: value for name, value in asdict(self).items() if name != "chosen"} | {"recommended": self.recommended}


def record_scores(client: Client, judged: Judged, now: Way, step: StepReport, *, dense: str | None = None) -> RecordedScores:
    """Record the scores named in `now` for the hits of every query; `dense` is the name of the dense model.

    No more is found than by a search, because the least score found is what `sum` scales by.
    """
    recorded: dict[str, dict[str, dict[str, float]]] = {}
    alike = dict.fromkeys(now.weights, 1.0)
    for place, query in enumerate(judged.queries):
        found = client.search(
            query.asked, DEPTH, candidates="hybrid", weights=alike, fusion=now.fusion, rerank=DEPTH, dense=dense
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
    """Find the best weights, in steps of a tenth, and the best fusion, by cross-validation in five folds of the queries.

    Raises:
        CollectionError: If there are fewer than 20 queries.
    """
    queries = sorted(recorded)
    if len(queries) < LEAST_QUERIES:
        raise CollectionError(f"{len(queries)} judged queries are too few to fit weights; give at least {LEAST_QUERIES}")
    ways = [now, *(way for way in _ways(list(now.weights)) if way != now)]
    values = np.stack([_values(recorded[query], qrels.get(query, {}), ways, metric) for query in queries], axis=1)
    held_out = np.empty(len(queries))
    chosen: dict[str, Way] = {}
    places = list(range(len(queries)))
    random.Random(SEED).shuffle(places)
    for fold in (places[start::FOLDS] for start in range(FOLDS)):
        others = np.setdiff1d(places, fold)
        best = int(values[:, others].mean(axis=1).argmax())
        held_out[fold] = values[best, fold]
        chosen |= {queries[place]: ways[best] for place in fold}
    return FittedWeights(
        metric.key, len(queries), ways[int(values.mean(axis=1).argmax())], now, float(values[0].mean()),
        float(held_out.mean()), paired(held_out.tolist(), values[0].tolist()), chosen,
    )  # fmt: skip


def _ways(names: Sequence[str]) -> Iterator[Way]:
    for shares in itertools.product(range(SHARES + 1), repeat=len(names)):
        if sum(shares) == SHARES:
            weights = {name: share / SHARES for name, share in zip(names, shares, strict=True) if share}
            for fusion in FUSIONS:
                yield Way(weights, fusion)


def _values(
    scores: Mapping[str, Mapping[str, float]], judged: Mapping[str, float], ways: Sequence[Way], metric: Metric
) -> NDArray[np.float64]:
    """Return the metric of one query for each way, ranked by `fused`; equal scores are in the order of ids."""
    names, ids = list(scores), sorted({id_ for of in scores.values() for id_ in of})
    there = np.array([[id_ in scores[name] for id_ in ids] for name in names], np.bool_)  # [names, ids]
    parts = {}
    for fusion in FUSIONS:
        alone = [fused({name: scores[name]}, {name: 1.0}, fusion) for name in names]
        parts[fusion] = np.array([[part.get(id_, 0.0) for id_ in ids] for part in alone])
    found = np.zeros(len(ways))
    for place, way in enumerate(ways):
        weights = np.array([way.weights.get(name, 0.0) for name in names])
        known = there[weights > 0].any(axis=0)
        order = np.argsort(np.where(known, -(weights @ parts[way.fusion]), np.inf), kind="stable")[: min(metric.k, known.sum())]
        found[place] = metric.of([ids[best] for best in order], judged)
    return found


def write_weights(path: Path, way: Way) -> None:
    """Write `fusion` and the table `[weights]` to the application's settings; all other lines stay unchanged.

    Raises:
        SettingsError: If the file cannot be read, or already has `fusion` or `[weights]`.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        before = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    if taken := [name for name in ("fusion", "weights") if name in before]:
        raise SettingsError(f"{path} already has {taken[0]!r}; remove it, or enter the fitted weights by hand")
    table = "".join(f"{name} = {weight:g}\n" for name, weight in way.weights.items())
    made = f'fusion = "{way.fusion}"\n{text}{"" if text.endswith(chr(10)) or not text else chr(10)}\n[weights]\n{table}'
    if tomllib.loads(made) != before | {"fusion": way.fusion, "weights": dict(way.weights)}:
        raise SettingsError(f"{path} cannot be extended automatically; write fusion and [weights] into it by hand")
    atomic_write(path, made.encode())
