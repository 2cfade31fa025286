"""How much of the exact answer a client's search finds, at what latency, and the least effort that reaches a goal: chosen as
`index tune` chooses (late_interaction/recall_goal.py)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from late_interaction.errors import MissingDependency, UsageError
from late_interaction.metrics import percentile
from late_interaction.recall_goal import Answer, least_effort, work
from query import Client
from query.types import Matrix, Query, SearchResult

__all__ = ["Effort", "Goal", "RecallReport", "measure_recall", "parse_goal", "plot_recall"]

RERANKS = (10, 20, 50, 100, 200, 500, 1000, 2000)
PROBES = (4, 8, 16, 32, 64)
PROBED = ("centroid", "hybrid")  # strategies that `probes` means something to
EXACT = "exhaustive"
Step = Callable[[str, int, int], None]
_GOAL = re.compile(r"recall@(\d{1,4})=(0?\.\d+|1(?:\.0*)?)")


@dataclass(frozen=True, slots=True)
class Goal:
    """The share `recall` of the exact top k."""

    k: int = 10
    recall: float = 0.98


@dataclass(frozen=True, slots=True)
class Effort:
    """One setting, measured. candidates: share of the exact top k among the candidates that are reranked; recall: among the
    first k hits. p50_ms, p95_ms: of a search of k hits, from ready query rows."""

    strategy: str
    probes: int | None
    rerank: int
    candidates: float
    recall: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class RecallReport:
    """curve: what was measured, by strategy, then by probes. chosen: of each strategy the effort of the least work that reaches
    the goal, where any does."""

    goal: Goal
    queries: int
    exact_p50_ms: float
    curve: tuple[Effort, ...]
    chosen: tuple[Effort, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def parse_goal(text: str) -> Goal:
    """`recall@10=0.98`. Raises: UsageError."""
    found = _GOAL.fullmatch(text.strip())
    if not found or not 0 < float(found[2]) <= 1 or int(found[1]) < 1:
        raise UsageError(f"--goal must be like recall@10=0.98, got {text!r}")
    return Goal(int(found[1]), float(found[2]))


def measure_recall(
    client: Client,
    texts: Sequence[str],
    goal: Goal,
    *,
    strategies: Sequence[str] | None = None,
    whole: bool = True,
    step: Step | None = None,
) -> RecallReport:
    """Against MaxSim over everything, by the same index and its stored vectors. strategies: None for all that order by MaxSim
    and take ready rows. whole: measure the whole curve, not only as far as the goal asks.

    Raises: UsageError where the index has no candidates `exhaustive`, or no query finds anything.
    """
    say = step or (lambda _what, _done, _total: None)
    if EXACT not in client.strategies:
        raise UsageError(f"recall is measured against candidates {EXACT}, and {client.address} has none: add them in app.toml")
    if not texts:
        raise UsageError("recall needs queries: the collection has none")
    chosen = list(strategies or (name for name in client.strategies if name not in (EXACT, "bm25", "hybrid")))
    asked: list[_Asked] = []
    exact_ms = []
    for place, (text, rows) in enumerate(zip(texts, client.encoder.encode_queries(texts), strict=True)):
        result, took = _timed(client, rows, goal.k, EXACT, None, None)
        asked.append(_Asked(text, rows, [hit.passage_id for hit in result.hits]))
        exact_ms.append(took)
        say("exact MaxSim", place + 1, len(texts))
    found = [query for query in asked if query.exact]
    climbed = [_climbed(client, found, goal, name, whole, say) for name in chosen]
    curve = tuple(effort for efforts, _ in climbed for effort in efforts)
    best = tuple(effort for _, effort in climbed if effort is not None)
    return RecallReport(goal, len(texts), 1000 * percentile(exact_ms, 0.5), curve, best)


def _climbed(
    client: Client, queries: Sequence[_Asked], goal: Goal, strategy: str, whole: bool, say: Step
) -> tuple[list[Effort], Effort | None]:
    """What was measured of a strategy, and the effort to choose."""
    ladders = [[(probes, rerank) for rerank in RERANKS if rerank >= goal.k] for probes in _probes(strategy)]
    measured: dict[_Pair, Effort] = {}

    def ask(pair: _Pair) -> list[Answer]:
        measured[pair], answers = _effort(client, queries, goal.k, strategy, *pair)
        say(f"settings of {strategy}", len(measured), sum(map(len, ladders)))
        return answers

    best = least_effort(ladders, ask, [query.exact for query in queries], goal.recall, whole=whole).best
    return list(measured.values()), None if best is None else measured[best.effort]


def _probes(strategy: str) -> tuple[int | None, ...]:
    return PROBES if strategy in PROBED else (None,)


_Pair = tuple[int | None, int]  # probes and rerank


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query as text and rows, and the ids of passages that exact MaxSim finds."""

    text: str
    rows: Matrix
    exact: list[str]


def _effort(
    client: Client, queries: Sequence[_Asked], k: int, strategy: str, probes: int | None, rerank: int
) -> tuple[Effort, list[Answer]]:
    answers, recalls, among, seconds = [], [], [], []
    for query in queries:
        question: Query | Matrix = query.text if strategy in ("bm25", "hybrid") else query.rows
        result, took = _timed(client, question, k, strategy, probes, rerank)
        candidates = client.search(question, rerank, candidates=strategy, probes=probes, rerank=rerank).hits
        ids, exact = [hit.passage_id for hit in result.hits], set(query.exact)
        answers.append(Answer(ids, work(result.matched or 0, result.reranked)))
        seconds.append(took)
        recalls.append(len(exact & set(ids)) / len(exact))
        among.append(len(exact & {hit.passage_id for hit in candidates}) / len(exact))
    p50, p95 = (1000 * percentile(seconds, share) for share in (0.5, 0.95))
    return Effort(strategy, probes, rerank, _mean(among), _mean(recalls), p50, p95), answers


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 1.0


def _timed(
    client: Client, query: Query | Matrix, k: int, strategy: str, probes: int | None, rerank: int | None
) -> tuple[SearchResult, float]:
    start = time.perf_counter()
    result = client.search(query, k, candidates=strategy, probes=probes, rerank=rerank)
    return result, time.perf_counter() - start


def plot_recall(report: RecallReport, path: Path) -> None:
    """Latency against recall, a line for each strategy and number of probes; the format is that of the file's ending.

    Raises: MissingDependency without matplotlib.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingDependency('a plot needs matplotlib: pip install "colbert-vespa[plot]"') from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for strategy, probes in dict.fromkeys((e.strategy, e.probes) for e in report.curve):
        line = [e for e in report.curve if (e.strategy, e.probes) == (strategy, probes)]
        label = strategy if probes is None else f"{strategy}, {probes} probes"
        axes.plot([e.recall for e in line], [e.p50_ms for e in line], marker="o", label=label)
    axes.axvline(report.goal.recall, color="grey", linestyle="--")
    axes.set_xlabel(f"recall@{report.goal.k} against exhaustive MaxSim")
    axes.set_ylabel("latency p50, ms")
    axes.legend()
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)
