"""Compare two stages on the same texts or queries, by measures with a name and a direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Matrix
from late_interaction.extras import required
from late_interaction.metrics import overlap_at_k

__all__ = ["LAYERS", "MEASURES", "Case", "Comparison", "compare_orders", "row_cosines"]

LAYERS = {
    "encoder": "the exported graph compared with the checkpoint in torch",
    "quantization": "a smaller graph against fp32",
    "device": "a graph on a device against fp32 on the processor",
    "rules": "the bundle's tokenization against the trained one",
    "embedder": "vectors that Vespa's embedder made against the encoder's",
    "codec": "stored vectors, decoded, against the encoder's",
    "ranking": "scores of the engine against MaxSim over the same stored vectors",
    "candidates": "hits of a search against those of MaxSim over everything",
    "answers": "hits of a search against MaxSim over the encoder's vectors",
    "addresses": "hits of two indexes",
}
MEASURES = {  # name: whether more is better
    "ids_equal": True,
    "rows_equal": True,
    "mean_cosine": True,
    "worst_cosine": True,
    "overlap": True,
    "tau": True,
    "score_error": False,
}
WORST = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One of the largest deviations.

    Attributes:
        what: The query or passage it belongs to.
        reason: Known reason, or an empty string.
    """

    what: str
    measure: str
    value: float
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """One layer of two engines, compared.

    Attributes:
        measured: Values by the names in MEASURES. `overlap` is the share of common hits among the k best, mean over queries;
            `tau` is Kendall's, mean over queries; `score_error` is the largest absolute difference of two scores.
        codec: Codec of a layer whose thresholds depend on it.
    """

    layer: str
    left: str
    right: str
    measured: Mapping[str, float]
    cases: tuple[Case, ...] = ()
    codec: str = ""

    @property
    def name(self) -> str:
        """Return the layer and the two sides, as `layer left : right`."""
        return f"{self.layer} {self.left} : {self.right}"

    def to_json(self) -> dict[str, object]:
        """Return the comparison as it is written to JSON."""
        return {**asdict(self), "name": self.name, "measured": dict(self.measured)}


def row_cosines(left: Matrix, right: Matrix) -> NDArray[np.float64]:
    """Return the cosines `[t]` of the rows of two matrices `[t, d]`; rows may have any length."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, 1e-12))


def compare_orders(
    left: Mapping[str, Mapping[str, float]], right: Mapping[str, Mapping[str, float]], k: int
) -> tuple[dict[str, float], list[Case]]:
    """Compare scores by query and passage: overlap of the k best of each side, tau and score_error of passages that both have.

    Passages without rows score minus infinity and have no error; a score that is NaN makes every measure NaN. Cases are the
    queries with the least overlap, if it is below 1, and the one with the largest error.
    """
    with required("local", "parity"):
        from scipy.stats import kendalltau

    overlaps, taus, errors = {}, [], {}
    for query in left:
        ours, theirs = _noted(left[query], right[query]), _noted(right[query], left[query])
        overlaps[query] = overlap_at_k(best(theirs), best(ours), k)
        if any(map(math.isnan, (*ours.values(), *theirs.values()))):
            overlaps[query] = errors[query] = math.nan
            taus.append(math.nan)
            continue
        both = sorted(ours.keys() & theirs.keys())
        pairs = np.array([[ours[id_], theirs[id_]] for id_ in both], np.float64).reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        if len(pairs):
            errors[query] = float(np.abs(pairs[:, 0] - pairs[:, 1]).max())
        if len(pairs) > 1 and np.ptp(pairs, axis=0).all():
            taus.append(float(kendalltau(pairs[:, 0], pairs[:, 1]).statistic))
    measured = {"overlap": float(np.mean(list(overlaps.values())))}
    if taus:
        measured["tau"] = float(np.mean(taus))
    if errors:
        measured["score_error"] = float(np.max(list(errors.values())))
    low = sorted((query for query in overlaps if not overlaps[query] >= 1), key=lambda query: (_low(overlaps[query]), query))
    cases = [Case(f"query {query}", "overlap", overlaps[query]) for query in low[:WORST]]
    if errors:
        worst = max(errors, key=lambda query: -_low(-errors[query]))
        cases.append(Case(f"query {worst}", "score_error", errors[worst]))
    return measured, cases


def _noted(scores: Mapping[str, float], others: Mapping[str, float]) -> Mapping[str, float]:
    """Replace missing scores by minus infinity, which Vespa writes as null for a passage without rows."""
    return {
        id_: -math.inf if math.isnan(score) and others.get(id_) == -math.inf else score for id_, score in scores.items()
    }  # fmt: skip


def best(scores: Mapping[str, float]) -> list[str]:
    """Return the ids, best first; equal scores in the order of ids."""
    return sorted(scores, key=lambda id_: (-scores[id_], id_))


def worst_rows(cosines: Mapping[str, NDArray[np.float64]], reasons: Mapping[str, str]) -> list[Case]:
    """Return the texts with the least cosine of a row, the worst first."""
    least = {what: float(values.min()) for what, values in cosines.items() if len(values)}
    order: Sequence[str] = sorted(least, key=lambda what: (_low(least[what]), what))
    worst = [what for what in order[:WORST] if not least[what] >= 1 - 1e-6]
    return [Case(what, "worst_cosine", least[what], reasons.get(what, "")) for what in worst]


def _low(value: float) -> float:
    """Return a sort key; NaN sorts as the worst."""
    return -math.inf if math.isnan(value) else value
