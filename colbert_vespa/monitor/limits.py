"""From where on a figure is a warning. The table and the alert rules take them from here, so that both say the same."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WarningLimits"]


@dataclass(frozen=True)
class WarningLimits:
    """feed_share: used disk or memory as a share of Vespa's limit. p99_s: seconds of a query in the container. degraded and
    failed: shares of the queries. distance: largest distance of two cumulative distributions (Kolmogorov-Smirnov). unknown:
    what the share of such tokens may grow by. centroids: mean similarity with the nearest centroid that may be lost, as in
    `index compact`. fewer: share of the passages that may be gone. grown: times as many passages as the baseline had.
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
