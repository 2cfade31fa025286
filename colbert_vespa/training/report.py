"""The report of a training run: before, after, BM25 and a dense encoder on the same queries, as JSON, table and plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from colbert_vespa.evaluation.plots import new_figure, save_figure
from colbert_vespa.training.measuring import METRICS, GainOverBaseline
from late_interaction.files import atomic_write
from late_interaction.json_values import finite_json

__all__ = ["TrainingReport"]


@dataclass(frozen=True)
class TrainingReport:
    """Evaluation of a training run.

    Attributes:
        systems: Means of the metrics by system; the first is the trained model.
        differences: Differences of the trained model to each other system.
        losses: Pairs (step, training loss).
        evaluations: Pairs (step, means over a part of the held-out queries); step 0 is the start.
        evaluated_bm25: Means of BM25 over the same part.
        best_step: Step of the checkpoint that was kept.
    """

    collection: str
    queries: int
    documents: int
    systems: Mapping[str, Mapping[str, float]]
    differences: Sequence[GainOverBaseline]
    losses: Sequence[tuple[int, float]] = ()
    evaluations: Sequence[tuple[int, Mapping[str, float]]] = ()
    evaluated_bm25: Mapping[str, float] | None = None
    best_step: int | None = None
    seconds: float = 0.0
    data: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the report as it is written to JSON."""
        return asdict(self)

    def rows(self) -> dict[str, object]:
        """Return the rows of a table."""
        shown = {
            name: "  ".join(f"{metric.replace('_at_', '@')} {means[metric]:.4f}" for metric in METRICS)
            for name, means in self.systems.items()
        }
        gains = {
            f"gain over {d.against}": f"{d.difference:+.4f} nDCG@10, 95 % from {d.low:+.4f} to {d.high:+.4f}, {_tests(d)}"
            for d in self.differences
        }
        return {"held out": f"{self.queries:,} queries over {self.documents:,} documents", **shown, **gains}

    def write(self, folder: Path) -> None:
        """Write report.json and report.md."""
        atomic_write(folder / "report.json", (json.dumps(finite_json(self.to_json()), indent=1) + "\n").encode())
        lines = ["| | nDCG@10 | MRR@10 | recall@100 |", "|---|---|---|---|"]
        lines += [f"| {name} | " + " | ".join(f"{m[k]:.4f}" for k in METRICS) + " |" for name, m in self.systems.items()]
        lines += ["", *(f"- {name}: {value}" for name, value in self.rows().items() if name.startswith("gain"))]
        text = f"# {self.collection}: {self.queries} queries, {self.documents} documents\n\n" + "\n".join(lines) + "\n"
        atomic_write(folder / "report.md", text.encode())

    def plot(self, path: Path) -> None:
        """Plot nDCG@10 of each system with the interval of its difference, and the curves.

        Raises:
            MissingDependency: If matplotlib is not installed.
        """
        figure = new_figure(10, 4, constrained=True)
        bars, curve = figure.subplots(1, 2)
        names = list(self.systems)
        bars.bar(names, [self.systems[name]["ndcg_at_10"] for name in names], color=["C0"] + ["C7"] * (len(names) - 1))
        bars.set_ylabel("nDCG@10")
        bars.tick_params(axis="x", rotation=20)
        if self.losses:
            curve.plot(*zip(*self.losses, strict=True), color="C1", label="training loss")
        if self.evaluations:
            other = curve.twinx()
            steps, values = zip(*((step, means["ndcg_at_10"]) for step, means in self.evaluations), strict=True)
            other.plot(steps, values, color="C0", marker="o", label="nDCG@10 held out")
            if self.evaluated_bm25 is not None:
                other.axhline(self.evaluated_bm25["ndcg_at_10"], color="C7", linestyle="--", label="BM25")
            other.legend(loc="lower right")
            other.set_ylabel("nDCG@10")
        curve.set_xlabel("step")
        curve.set_ylabel("loss")
        save_figure(figure, path)


def _tests(difference: GainOverBaseline) -> str:
    if difference.t_test is None or difference.randomisation is None:
        return "one query allows no test"
    return f"p = {difference.t_test:.2g} (paired t-test), {difference.randomisation:.2g} (randomisation)"
