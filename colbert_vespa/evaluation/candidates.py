"""Find the candidates that reach a recall goal with the least work, on a sample of the user's own documents.

`pooled` in every encoding and `centroid` are compared with exact MaxSim.

Work is counted in multiply-adds of MaxSim, not timed. Other operations count as the multiply-adds that take as long: a posting
of a centroid's list, and fetching a vector that HNSW compares. Vectors are compared one by one here, with int8 cells; HNSW
finds nearly the same (docs/performance).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from colbert_vespa.evaluation.plots import new_figure, save_figure
from colbert_vespa.evaluation.recall import RecallGoal
from late_interaction.array_types import Matrix
from late_interaction.bundle import MeasuredCandidates
from late_interaction.codebook import Codebook
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim_many
from late_interaction.one_vector import MEAN, OneVector
from late_interaction.progress import CountReport, StepReport
from vespa_app.candidates.centroid import list_weights
from vespa_app.candidates.pooled import hnsw_targets, one_vector_bytes
from vespa_app.planning.memory import ENTRY_B, HNSW_NODE_B, LINK_B, POSTING_B
from vespa_app.planning.queries import MEASURED_DIM, MEASURED_ROWS, POSTINGS_PER_S, TOKENS_PER_S
from vespa_app.settings import MEAN_VECTOR, AppSettings, OneVectorSettings

__all__ = [
    "CandidatePoint", "CandidateReport", "choice_of", "exact_best", "measure_candidates", "plot_candidates", "sampled_rows",
    "spans", "stored_cells",
]  # fmt: skip

RERANKS = (50, 100, 200, 500, 1000, 2000)
PROBES = (8, 16, 32, 64)
CENTROID = "centroid"
POSTING = TOKENS_PER_S * MEASURED_ROWS * MEASURED_DIM / POSTINGS_PER_S  # multiply-adds that take as long
FETCHED = 1000.0  # the same of a vector and its links
LOOKED_AT = 12.0  # vectors that HNSW compares for each that is to be found, with 16 links (benchmarks/candidates.py)
SPAN = (4, 12)  # words of a passage that stand for a query
ROWS = 8  # rows of a passage that stand for a query, where the bundle has no model
ENCODED = 512  # passages as one vector at a time
Work = Callable[[int], float]  # of finding so many candidates


@dataclass(frozen=True, slots=True)
class CandidatePoint:
    """Recall and work of one way at one number of candidates.

    Attributes:
        way: Name of the line of the curve.
        rerank: Number of candidates that are reranked.
        recall: Share of the exact top k among these candidates.
        probes: Centroids probed for each query vector, for candidates `centroid`.
    """

    way: str
    rerank: int
    recall: float
    work: float
    probes: int = 0


@dataclass(frozen=True)
class CandidateReport:
    """Candidates measured on a sample.

    Attributes:
        points: Measured points, by way, `rerank` ascending.
        bytes: Bytes per passage of each way, in addition to its token vectors.
        best: The point that reaches the goal with the least work; None if no point reaches it.
    """

    goal: RecallGoal
    passages: int
    queries: int
    points: tuple[CandidatePoint, ...]
    bytes: Mapping[str, float] = field(default_factory=dict)
    best: CandidatePoint | None = None

    @property
    def ways(self) -> Mapping[str, Sequence[CandidatePoint]]:
        """Return the points of each way, `rerank` ascending."""
        found: dict[str, list[CandidatePoint]] = {}
        for point in self.points:
            found.setdefault(point.way, []).append(point)
        return found

    def least(self, way: str) -> CandidatePoint | None:
        """Return the first point of a way that reaches the goal."""
        return next((point for point in self.ways[way] if point.recall >= self.goal.recall), None)

    def to_json(self) -> dict[str, object]:
        """Return the report as it is written to JSON."""
        return asdict(self)


def spans(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """Return seeded spans of 4 to 12 words of the texts, to be used as queries."""
    drawn, chosen = random.Random(seed), []
    for text in drawn.choices(texts, k=count):
        words, length = text.split(), drawn.randint(*SPAN)
        start = drawn.randint(0, max(0, len(words) - length))
        chosen.append(" ".join(words[start : start + length]))
    return chosen


def sampled_rows(passages: Sequence[Matrix], count: int, seed: int) -> list[Matrix]:
    """Return seeded rows of passages, to be used as rows of queries."""
    drawn = np.random.default_rng(seed)
    chosen = [passages[place] for place in drawn.integers(0, len(passages), count)]
    return [rows[np.sort(drawn.permutation(len(rows))[:ROWS])] for rows in chosen]


def choice_of(report: CandidateReport, encodings: Mapping[str, OneVector]) -> MeasuredCandidates | None:
    """Return what a bundle records of the report; None if no candidates reach the goal.

    Args:
        report: Candidates measured on a sample.
        encodings: The encodings that were measured, by name.
    """
    best = report.best
    if best is None:
        return None
    numbers = {"rerank": best.rerank, "recall": round(best.recall, 4), "goal": report.goal.recall, "k": report.goal.k}
    if best.way in encodings:
        return MeasuredCandidates("pooled", encoding=encodings[best.way].name, **numbers)  # type: ignore[arg-type]
    return MeasuredCandidates(CENTROID, probes=best.probes, **numbers)  # type: ignore[arg-type]


def measure_candidates(
    passages: Sequence[Matrix],
    queries: Sequence[Matrix],
    goal: RecallGoal,
    encodings: Mapping[str, OneVector],
    codebook: Codebook | None = None,
    *,
    known: Sequence[set[int]] | None = None,
    step: StepReport | None = None,
) -> CandidateReport:
    """Measure recall and work of each kind of candidates against exact MaxSim.

    Args:
        passages: Token vectors of each passage, `[t, d]`.
        queries: Token vectors of each query, `[t, d]`.
        goal: Recall to reach, and its k.
        encodings: One-vector encodings, by the name of their line in the curve.
        codebook: Codebook of candidates `centroid`; None leaves them out.
        known: `exact_best` of these passages and queries, if it is already computed. All of them must have rows.
        step: Called with the progress of each step.

    Returns:
        The measured points and the cheapest one that reaches the goal.

    Raises:
        UsageError: If there are no more passages than k, or no queries.
    """
    say = step or (lambda _what, _done, _total: None)
    passages, queries = [rows for rows in passages if len(rows)], [rows for rows in queries if len(rows)]
    if len(passages) <= goal.k or not queries:
        raise UsageError(
            f"the sample has {len(passages)} passages and {len(queries)} queries: give more than {goal.k} passages, and a query"
        )
    exact = exact_best(passages, queries, goal.k, say) if known is None else known
    maxsim = float(np.mean([rows.size for rows in passages]) * np.mean([len(rows) for rows in queries]))
    points: list[CandidatePoint] = []
    sizes: dict[str, float] = {}
    for name, encoding in encodings.items():
        stored = stored_cells(passages, encoding, partial(say, name))
        scores = np.stack([encoding.query(rows) for rows in queries]) @ stored.T
        points += _points(name, scores, exact, maxsim, partial(_hnsw_work, encoding))
        sizes[name] = one_vector_bytes(_settings(encoding), encoding.dim) + 2 * AppSettings.hnsw_links * LINK_B + HNSW_NODE_B
    if codebook is not None:
        lists = _Lists.of(passages, codebook, say)
        sizes[CENTROID] = len(lists.passages) / len(passages) * (POSTING_B + ENTRY_B)
        for number, probes in enumerate(own := [probes for probes in PROBES if probes <= codebook.size]):
            scores, postings = lists.scores(queries, probes)
            say("centroid lists", number + 1, len(own))
            points += _points(f"{CENTROID} {probes}", scores, exact, maxsim, _constant(postings * POSTING), probes)
            sizes[f"{CENTROID} {probes}"] = sizes[CENTROID]
        del sizes[CENTROID]
    reached = [point for point in points if point.recall >= goal.recall]
    best = min(reached, key=lambda point: point.work, default=None)
    return CandidateReport(goal, len(passages), len(queries), tuple(points), sizes, best)


def exact_best(passages: Sequence[Matrix], queries: Sequence[Matrix], k: int, step: StepReport | None = None) -> list[set[int]]:
    """Return the places of the k passages with the greatest MaxSim, for each query."""
    whole, lengths, best = np.concatenate(passages), [len(rows) for rows in passages], []
    for number, Q in enumerate(queries):
        best.append(set(np.argsort(-maxsim_many(Q, whole, lengths), kind="stable")[:k].tolist()))
        if step:
            step("exact MaxSim", number + 1, len(queries))
    return best


def _settings(encoding: OneVector) -> OneVectorSettings:
    return MEAN_VECTOR if encoding.name == MEAN else OneVectorSettings(encoding.name, encoding.dim, "int8")


def stored_cells(passages: Sequence[Matrix], encoding: OneVector, progress: CountReport | None = None) -> Matrix:
    """Return the one vector of each passage `[n, dim]`; if lengths count, rounded and clipped as int8 cells are."""
    stored: Matrix = np.empty((len(passages), encoding.dim), np.float32)
    for first in range(0, len(passages), ENCODED):
        stored[first : first + ENCODED] = encoding.passages(passages[first : first + ENCODED])
        if progress:
            progress(min(first + ENCODED, len(passages)), len(passages))
    if encoding.normalized:
        return stored
    cells: Matrix = encoding.cells(stored) * np.float32(encoding.unit)
    return cells


def _hnsw_work(encoding: OneVector, rerank: int) -> float:
    targets = hnsw_targets(encoding, max(AppSettings.target_hits, rerank), rerank)
    return LOOKED_AT * targets * (encoding.dim + FETCHED)


def _constant(work: float) -> Work:
    return lambda _rerank: work


def _points(
    way: str, scores: Matrix, exact: Sequence[set[int]], maxsim: float, finding: Work, probes: int = 0
) -> Iterator[CandidatePoint]:
    """Yield recall and work by number of candidates, from `scores [queries, passages]` and the `maxsim` work per passage."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, : max(RERANKS)]
    for rerank in RERANKS:
        shares = [len(best.intersection(row[:rerank].tolist())) / len(best) for best, row in zip(exact, order, strict=True)]
        counted = min(rerank, scores.shape[1])
        yield CandidatePoint(way, rerank, float(np.mean(shares)), finding(rerank) + counted * maxsim, probes)
        if rerank >= scores.shape[1]:
            return


@dataclass(frozen=True, eq=False)
class _Lists:
    """Passages of each centroid: `passages [starts[c] : starts[c + 1]]`."""

    codebook: Codebook
    count: int
    passages: np.ndarray[tuple[int], np.dtype[np.int64]]
    starts: np.ndarray[tuple[int], np.dtype[np.int64]]

    @classmethod
    def of(cls, passages: Sequence[Matrix], codebook: Codebook, say: StepReport) -> _Lists:
        codes, owners = [], []
        for first in range(0, len(passages), ENCODED):
            block = passages[first : first + ENCODED]
            owner = np.repeat(np.arange(first, first + len(block)), [len(rows) for rows in block])
            pairs = np.unique(np.stack([codebook.assign_near(np.concatenate(block)).astype(np.int64), owner]), axis=1)
            codes.append(pairs[0])
            owners.append(pairs[1])
            say("centroids", first + len(block), len(passages))
        code, owner = np.concatenate(codes), np.concatenate(owners)
        order = np.argsort(code, kind="stable")
        starts = np.searchsorted(code[order], np.arange(codebook.size + 1))
        return cls(codebook, len(passages), owner[order], starts.astype(np.int64))

    def scores(self, queries: Sequence[Matrix], probes: int) -> tuple[Matrix, float]:
        """Return scores `[queries, passages]` as Vespa's weighted sets add them, and the mean postings of a query."""
        scores: Matrix = np.zeros((len(queries), self.count), np.float32)
        postings = 0
        for query, Q in enumerate(queries):
            ids, _, gains = self.codebook.lookup.lists(Q, probes)
            for row, weights in zip(ids, list_weights(gains), strict=True):
                best: Matrix = np.zeros(self.count, np.float32)
                for centroid, weight in zip(row.tolist(), weights.tolist(), strict=True):
                    found = self.passages[self.starts[centroid] : self.starts[centroid + 1]]
                    best[found] = np.maximum(best[found], weight)
                    postings += len(found)
                scores[query] += best
        return scores, postings / len(queries)


def plot_candidates(report: CandidateReport, path: Path) -> None:
    """Plot recall against work, one line for each way; the format follows the file's ending.

    Raises:
        MissingDependency: If matplotlib is not installed.
    """
    figure = new_figure(8, 5)
    axes = figure.subplots()
    for way, points in report.ways.items():
        axes.plot([p.work / 1e6 for p in points], [p.recall for p in points], marker="o", label=way)
    axes.axhline(report.goal.recall, color="grey", linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel("million multiply-adds a query")
    axes.set_ylabel(f"recall@{report.goal.k} among the candidates")
    axes.set_title(f"{report.passages:,} passages, {report.queries} queries", loc="left", fontsize=10)
    axes.legend(fontsize=8)
    save_figure(figure, path, tight=True)
