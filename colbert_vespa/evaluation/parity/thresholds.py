"""The thresholds of each comparison: one table, and its overrides from the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from colbert_vespa.evaluation.parity.comparison import LAYERS, MEASURES, Comparison
from late_interaction.errors import UsageError

__all__ = ["THRESHOLDS", "Check", "checks_of", "parse_thresholds"]

Table = Mapping[str, Mapping[str, float]]
BY_KIND = ("codec", "device")  # layers whose thresholds depend on the kind that a comparison names
# by layer, or layer and kind; at least, of score_error at most
THRESHOLDS: Table = {
    "encoder": {"ids_equal": 1.0, "worst_cosine": 0.9999, "overlap": 0.95, "tau": 0.99, "score_error": 0.05},
    "quantization": {"mean_cosine": 0.99, "overlap": 0.9, "tau": 0.9},
    "device": {"worst_cosine": 0.9999, "overlap": 0.95, "tau": 0.99, "score_error": 0.05},
    "device smaller": {"mean_cosine": 0.99, "overlap": 0.9, "tau": 0.9},
    "rules": {"overlap": 0.7, "tau": 0.7},
    "embedder": {"overlap": 0.6},
    "codec float32": {"rows_equal": 1.0, "worst_cosine": 0.9999, "overlap": 0.95, "tau": 0.99},
    "codec bfloat16": {"rows_equal": 1.0, "worst_cosine": 0.999, "overlap": 0.9, "tau": 0.97},
    "codec residual4": {"rows_equal": 1.0, "mean_cosine": 0.99, "overlap": 0.92, "tau": 0.9},
    "codec residual2": {"rows_equal": 1.0, "mean_cosine": 0.96, "overlap": 0.85, "tau": 0.85},
    "codec residual1": {"rows_equal": 1.0, "mean_cosine": 0.9, "overlap": 0.75, "tau": 0.75},
    "codec binary": {"rows_equal": 1.0, "mean_cosine": 0.6, "overlap": 0.6, "tau": 0.6},
    "ranking": {"overlap": 0.95, "tau": 0.99, "score_error": 0.05},
    "candidates": {"overlap": 0.9, "score_error": 0.05},
    "answers": {"overlap": 0.7},
    "addresses": {"overlap": 0.7},
}


@dataclass(frozen=True, slots=True)
class Check:
    """One measure of one comparison against its threshold."""

    comparison: str
    measure: str
    value: float
    threshold: float

    @property
    def passed(self) -> bool:
        """Return whether the value meets the threshold."""
        return self.value >= self.threshold if MEASURES[self.measure] else self.value <= self.threshold

    @property
    def said(self) -> str:
        """Return the check as one line: comparison, measure, value and threshold."""
        sign = "at least" if MEASURES[self.measure] else "at most"
        return f"{self.comparison}: {self.measure} is {self.value:.5g}, wanted {sign} {self.threshold:.5g}"


def checks_of(comparison: Comparison, own: Table) -> list[Check]:
    """Return the checks of a comparison.

    Args:
        comparison: The comparison.
        own: Thresholds that override the table's, by layer or by the comparison's full name, which takes precedence.
    """
    layer = comparison.layer
    wanted = dict(THRESHOLDS.get(f"{layer} {comparison.codec}" if comparison.codec and layer in BY_KIND else layer, {}))
    wanted |= {**own.get(layer, {}), **own.get(comparison.name, {})}
    return [
        Check(comparison.name, measure, comparison.measured[measure], least)
        for measure, least in wanted.items()
        if measure in comparison.measured
    ]


def parse_thresholds(given: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return thresholds from texts such as `codec.mean_cosine=0.98`; a comparison's whole name may stand before the dot.

    Raises:
        UsageError: If a text is not valid.
    """
    found: dict[str, dict[str, float]] = {}
    for text in given:
        left, _, value = text.rpartition("=")
        name, _, measure = left.rpartition(".")
        known = name in LAYERS or (" : " in name and name.split(" ")[0] in LAYERS)
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not known or measure not in MEASURES or not math.isfinite(number):
            raise UsageError(
                f"--threshold must be LAYER.MEASURE=NUMBER with a layer of {', '.join(LAYERS)} and a measure of "
                f"{', '.join(MEASURES)}, got {text!r}"
            )
        found.setdefault(name, {})[measure] = number
    return found
