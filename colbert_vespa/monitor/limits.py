"""The limits from which a value is a warning, shared by the table and the alert rules."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WarningLimits"]


@dataclass(frozen=True)
class WarningLimits:
    """Values above or below which a check warns.

    Attributes:
        feed_share: Used disk or memory, as a share of Vespa's limit.
        p99_s: Seconds of a query in the container, 99th percentile.
        degraded: Share of degraded queries.
        failed: Share of failed queries.
        distance: Largest distance of two cumulative distributions (Kolmogorov-Smirnov).
        unknown: Increase of the share of tokens that are not in the vocabulary.
        centroids: Loss of mean similarity to the nearest centroid, as in `index compact`.
        fewer: Share of the passages that may be missing.
        grown: Number of passages, as a multiple of the baseline's.
    """

    feed_share: float = 0.9
    p99_s: float = 1.0
    degraded: float = 0.01
    failed: float = 0.001
    distance: float = 0.2
    unknown: float = 0.01
    centroids: float = 0.03
    fewer: float = 0.1
    grown: float = 2.0
