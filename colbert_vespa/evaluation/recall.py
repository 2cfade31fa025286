"""Measure the share of the exact result that a search finds, its latency, and the least effort that reaches a goal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from colbert_vespa.evaluation.metrics import percentile
from colbert_vespa.evaluation.plots import new_figure, save_figure
from late_interaction.array_types import Matrix
from late_interaction.errors import UsageError
from late_interaction.progress import StepReport
from late_interaction.recall_goal import CostedAnswer, counted_cost, least_effort
from query import Client
from query.types import Query, QueryVectors, SearchResult
from vespa_app.settings.application_settings import parts_of

__all__ = ["RecallGoal", "RecallPoint", "RecallReport", "measure_recall", "parse_goal", "plot_recall"]

RERANKS = (10, 20, 50, 100, 200, 500, 1000, 2000)
PROBES = (4, 8, 16, 32, 64)
_BY_TEXT = frozenset(("bm25", "dense", "hybrid"))  # strategies that need more of a query than its rows
PROBED = ("centroid", "hybrid")  # strategies that `probes` means something to
EXACT = "exhaustive"
_Setting = tuple[int | None, int]  # probes, rerank
_GOAL = re.compile(r"recall@(\d{1,4})=(0?\.\d+|1(?:\.0*)?)")


@dataclass(frozen=True, slots=True)
class RecallGoal:
    """The share `recall` of the exact top k."""

    k: int = 10
    recall: float = 0.98


@dataclass(frozen=True, slots=True)
class RecallPoint:
    """Recall and latency of one setting.

    Attributes:
        candidates: Share of the exact top k among the candidates that are reranked.
        recall: Share of the exact top k among the first k hits.
        p50_ms: Median milliseconds of a search for k hits from ready query rows.
        p95_ms: 95th percentile of the same.
    """

    strategy: str
    probes: int | None
    rerank: int
    candidates: float
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class RecallReport:
    """Recall of an index by strategy.

    Attributes:
        curve: Points by strategy and probes, least effort first.
        chosen: For each strategy the point of least effort that reaches the goal, if any does. Effort is the counted cost that
            `index tune` uses (late_interaction/recall_goal.py).
    """

    goal: RecallGoal
    queries: int
    exact_p50_ms: float
    curve: tuple[RecallPoint, ...]
    chosen: tuple[RecallPoint, ...]

    def to_json(self) -> dict[str, object]:
        """Return the report as it is written to JSON."""
        return asdict(self)


def parse_goal(text: str, option: str = "--goal") -> RecallGoal:
    """Return the goal that a text such as `recall@10=0.98` names.

    Raises:
        UsageError: If the text is not valid; the message names the option.
    """
    found = _GOAL.fullmatch(text.strip())
    if not found or not 0 < float(found[2]) <= 1 or int(found[1]) < 1:
        raise UsageError(f"{option} must be like recall@10=0.98, got {text!r}")
    return RecallGoal(int(found[1]), float(found[2]))


def measure_recall(
    client: Client,
    queries: Sequence[Query],
    goal: RecallGoal,
    *,
    strategies: Sequence[str] | None = None,
    step: StepReport | None = None,
) -> RecallReport:
    """Measure recall against MaxSim over everything, by the same index and its stored vectors.

    Args:
        client: Client of the index.
        queries: Queries to search with.
        goal: Recall to reach, and its k.
        strategies: Strategies to measure; None for all that order by MaxSim and accept ready rows.
        step: Called with the progress of each step.

    Returns:
        The curve and the chosen point of each strategy.

    Raises:
        UsageError: If the index has no candidates `exhaustive`, or if there are no queries.
    """
    say = step or (lambda _what, _done, _total: None)
    if EXACT not in client.strategies:
        raise UsageError(f"recall is measured against candidates {EXACT}, but {client.address} has none; add them in app.toml")
    if not queries:
        raise UsageError("recall needs queries, but the collection has none")
    chosen = list(strategies or (name for name in client.strategies if name not in (EXACT, "bm25", "hybrid")))
    truth, exact_ms, kept = [], [], []
    encoded = _encoded(client, queries)
    for place, query in enumerate(encoded):
        result, took = _timed(client, query, goal.k, EXACT, None, None)
        exact_ms.append(took)
        if result.hits:
            truth.append({hit.passage_id for hit in result.hits})
            kept.append(place)
        say("exact MaxSim", place + 1, len(encoded))
    rows, asked = [encoded[place] for place in kept], [queries[place] for place in kept]
    ladders = {name: _ladders(name, goal.k) for name in chosen}
    total = sum(len(ladder) for of_strategy in ladders.values() for ladder in of_strategy)
    curve: list[RecallPoint] = []
    best: list[RecallPoint] = []
    for name in chosen:
        given: Sequence[Query] = asked if not _BY_TEXT.isdisjoint(parts_of(name)) else rows
        before = len(curve)
        tried, least = _climbed(client, name, ladders[name], given, truth, goal, lambda n: say("settings", n, total), before)
        curve += tried
        best += [least] if least is not None else []
    return RecallReport(goal, len(rows), 1000 * percentile(exact_ms, 0.5), tuple(curve), tuple(best))


def _encoded(client: Client, queries: Sequence[Query]) -> list[Matrix]:
    """Return the rows of each query: supplied ones, or those of its text."""
    texts = [query for query in queries if isinstance(query, str)]
    made = iter(client.encoder.encode_queries(texts) if texts else [])
    return [
        next(made) if isinstance(query, str) else query.rows if isinstance(query, QueryVectors) else query for query in queries
    ]


def _climbed(
    client: Client,
    strategy: str,
    ladders: Sequence[Sequence[_Setting]],
    queries: Sequence[Query],
    truth: Sequence[set[str]],
    goal: RecallGoal,
    say: Callable[[int], None],
    before: int,
) -> tuple[list[RecallPoint], RecallPoint | None]:
    """Return all measured efforts, and the least one that reaches the goal."""
    measured: dict[_Setting, RecallPoint] = {}

    def ask(setting: _Setting) -> list[CostedAnswer]:
        answers, measured[setting] = _asked(client, queries, truth, goal.k, strategy, *setting)
        say(before + len(measured))
        return answers

    found = least_effort(ladders, ask, [sorted(ids) for ids in truth], goal.recall, whole=True)
    return [measured[tried.effort] for tried in found.tried], None if found.best is None else measured[found.best.effort]


def _ladders(strategy: str, k: int) -> list[list[_Setting]]:
    return [[(probes, rerank) for rerank in RERANKS if rerank >= k] for probes in (PROBES if strategy in PROBED else (None,))]


def _asked(
    client: Client, queries: Sequence[Query], truth: Sequence[set[str]], k: int, strategy: str, probes: int | None, rerank: int
) -> tuple[list[CostedAnswer], RecallPoint]:
    answers, recalls, among, seconds = [], [], [], []
    for query, exact in zip(queries, truth, strict=True):
        result, took = _timed(client, query, k, strategy, probes, rerank)
        candidates = client.search(query, rerank, candidates=strategy, probes=probes, rerank=rerank).hits
        seconds.append(took)
        ids = [hit.passage_id for hit in result.hits]
        answers.append(CostedAnswer(ids, counted_cost(result.matched or 0, result.reranked)))
        recalls.append(len(exact & set(ids)) / len(exact))
        among.append(len(exact & {hit.passage_id for hit in candidates}) / len(exact))
    p50, p95 = (1000 * percentile(seconds, share) for share in (0.5, 0.95))
    return answers, RecallPoint(strategy, probes, rerank, _mean(among), _mean(recalls), p50, p95)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _timed(
    client: Client, query: Query | Matrix, k: int, strategy: str, probes: int | None, rerank: int | None
) -> tuple[SearchResult, float]:
    start = time.perf_counter()
    result = client.search(query, k, candidates=strategy, probes=probes, rerank=rerank)
    return result, time.perf_counter() - start


def plot_recall(report: RecallReport, path: Path) -> None:
    """Plot latency against recall, one line for each strategy and number of probes; the format follows the file's ending.

    Raises:
        MissingDependency: If matplotlib is not installed.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for strategy, probes in dict.fromkeys((e.strategy, e.probes) for e in report.curve):
        line = [e for e in report.curve if (e.strategy, e.probes) == (strategy, probes)]
        label = strategy if probes is None else f"{strategy}, {probes} probes"
        axes.plot([e.recall for e in line], [e.p50_ms for e in line], marker="o", label=label)
    axes.axvline(report.goal.recall, color="grey", linestyle="--")
    axes.set_xlabel(f"recall@{report.goal.k} against exhaustive MaxSim")
    axes.set_ylabel("latency p50, ms")
    axes.legend()
    save_figure(figure, path, tight=True)
