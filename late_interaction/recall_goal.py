"""Find the least effort of a search that reaches a recall, for anything whose effort can be varied.

The caller says who searches and what effort is: the local engine tries probes and rerank (plaid/searching/tuning.py),
`evaluate --goal` those of any address, by strategy (colbert_vespa/evaluation/recall.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from late_interaction.errors import UsageError
from late_interaction.metrics import overlap_at_k

__all__ = ["CostedAnswer", "LeastEffort", "TriedEffort", "counted_cost", "least_effort"]

Effort = TypeVar("Effort")
ROUNDING = 1e-9  # of a mean of shares
RERANKED = 15  # cost relative to a candidate: a vector takes about 60 ns in 16-bit products, a code 4


@dataclass(frozen=True, slots=True)
class CostedAnswer:
    """What one query found, and its cost.

    Attributes:
        ids: best first.
        cost: milliseconds, or counted work.
    """

    ids: Sequence[str]
    cost: float


@dataclass(frozen=True, slots=True)
class TriedEffort(Generic[Effort]):
    """A tried effort with its mean recall and mean cost over the queries."""

    effort: Effort
    recall: float
    cost: float


@dataclass(frozen=True, slots=True)
class LeastEffort(Generic[Effort]):
    """The result.

    Attributes:
        best: the cheapest effort that reaches the goal, or None.
        tried: all that were measured, in order: the curve.
    """

    best: TriedEffort[Effort] | None
    tried: tuple[TriedEffort[Effort], ...]


def counted_cost(candidates: int, reranked: int) -> float:
    """Return the cost of a search with so many candidates and reranked passages.

    It is counted, not timed, so that the choice does not depend on the machine's load.
    """
    return float(candidates + RERANKED * reranked)


def least_effort(
    ladders: Iterable[Sequence[Effort]],
    ask: Callable[[Effort], Sequence[CostedAnswer]],
    truth: Sequence[Sequence[str]],
    recall: float,
    *,
    whole: bool = False,
) -> LeastEffort[Effort]:
    """Find the cheapest effort that reaches `recall`.

    Every ladder is climbed until it reaches the goal, costs as much as the best so far, or a step costs no more than the
    one before it, so that there is nothing left to do.

    Args:
        ladders: lists of efforts; in each, every effort costs more and finds more than the one before.
        ask: returns the answers to all queries with an effort.
        truth: for each query the ids that exact search finds, at least one.
        recall: the mean share of those to reach.
        whole: climb every ladder to its end, for the curve; the choice is the same.

    Raises:
        UsageError: if recall is not above 0 and at most 1, or there is no query.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall must be above 0 and at most 1, got {recall}")
    if not truth:
        raise UsageError("no query has any hits; give queries that have rows, and an index that has passages")
    best: TriedEffort[Effort] | None = None
    tried: list[TriedEffort[Effort]] = []
    for ladder in ladders:
        before: float | None = None
        for effort in ladder:
            answers = ask(effort)
            cost = sum(answer.cost for answer in answers) / len(truth)
            shares = [overlap_at_k(list(answer.ids), ids, len(ids)) for answer, ids in zip(answers, truth, strict=True)]
            measured = TriedEffort(effort, sum(shares) / len(truth), cost)
            tried.append(measured)
            if (best is not None and cost >= best.cost) or cost == before:
                if whole and cost != before:
                    before = cost
                    continue
                break
            if measured.recall >= recall - ROUNDING:
                best = measured
                if not whole:
                    break
            before = cost
    return LeastEffort(best, tuple(tried))
