"""The result of the checks: rows for people, samples for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "METRICS",
    "OK",
    "STATES",
    "UNKNOWN",
    "WARNING",
    "WRONG",
    "CheckRow",
    "HealthReport",
    "Sample",
    "Section",
    "joined",
    "worst",
]

OK, WARNING, WRONG, UNKNOWN = "ok", "warning", "wrong", "unknown"
STATES = {OK: 0, WARNING: 1, UNKNOWN: 2, WRONG: 3}  # as a metric, and by how much it matters

PREFIX = "colbert_vespa_"
METRICS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "state": ("State of each row of the table: 0 ok, 1 warning, 2 unknown, 3 wrong.", ("area", "name")),
    "checked_timestamp_seconds": ("Time at which the last check ended.", ()),
    "check_duration_seconds": ("Duration of the last check.", ()),
    "services": ("Services of a host by whether they answer.", ("host", "answers")),
    "content_nodes": ("Content nodes by state, as reported by the cluster controller.", ("state",)),
    "documents": ("Passages that a query finds in an index; in layout chunks documents.", ("index",)),
    "coverage_ratio": ("Share of the documents that Vespa searched, as it reports.", ("index",)),
    "disk_used_ratio": ("Share of a content node's disk that is used.", ("host",)),
    "memory_used_ratio": ("Share of a content node's memory that is used.", ("host",)),
    "feed_limit_ratio": ("Share of disk or memory at which feeding is blocked.", ("resource",)),
    "feed_blocked": ("1 while Vespa rejects documents because disk or memory is full.", ()),
    "queries_per_second": ("Queries per second over the last minute.", ("host",)),
    "degraded_queries_per_second": ("Queries per second that were answered without all documents.", ("host",)),
    "failed_queries_per_second": ("Queries per second that failed.", ("host",)),
    "query_latency_seconds": ("Time that a container took for a query.", ("host", "quantile")),
    "canaries": ("Canaries by outcome.", ("outcome",)),
    "canary_latency_seconds": ("Latency of the canaries, including encoding: slowest and median.", ("quantile",)),
    "drift_distance": ("Distance from the baseline, 0 for none.", ("of",)),
    "index_version": ("Version of a local index.", ()),
}


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One line of a report.

    Attributes:
        area: The part it belongs to.
        says: What was found, and what to do if it is not in order.
    """

    area: str
    name: str
    state: str
    says: str

    def to_json(self) -> dict[str, str]:
        """Return the row as it is written to JSON."""
        return {"area": self.area, "name": self.name, "state": self.state, "says": self.says}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value for Prometheus.

    Attributes:
        metric: A name of METRICS, without prefix.
    """

    metric: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the sample as it is written to JSON."""
        return {"metric": PREFIX + self.metric, "labels": dict(self.labels), "value": self.value}


@dataclass(frozen=True, slots=True)
class Section:
    """Rows and samples of one part of a report."""

    rows: tuple[CheckRow, ...] = ()
    samples: tuple[Sample, ...] = ()


def joined(sections: Iterable[Section]) -> Section:
    """Return one section with the rows and samples of all."""
    given = list(sections)
    rows = tuple(row for section in given for row in section.rows)
    return Section(rows, tuple(sample for section in given for sample in section.samples))


def worst(states: Iterable[str]) -> str:
    """Return the worst of these states; OK if there are none."""
    return max(states, key=STATES.__getitem__, default=OK)


@dataclass(frozen=True)
class HealthReport:
    """Result of all checks.

    Attributes:
        moment: End of the look, in seconds since the epoch.
        seconds: Duration of the look.
    """

    address: str
    found: Section
    moment: float
    seconds: float

    @property
    def state(self) -> str:
        """Return the worst state of all rows."""
        return worst(row.state for row in self.found.rows)

    @property
    def exit_code(self) -> int:
        """Return 0 if every row is ok; a part that cannot be checked is not ok."""
        return int(self.state != OK)

    def samples(self) -> tuple[Sample, ...]:
        """Return all samples for Prometheus."""
        states: dict[tuple[str, str], float] = {}  # Prometheus refuses all where one comes twice
        for row in self.found.rows:
            key = row.area, row.name
            states[key] = max(states.get(key, 0.0), STATES[row.state])
        rows = [Sample("state", value, {"area": area, "name": name}) for (area, name), value in states.items()]
        times = Sample("checked_timestamp_seconds", self.moment), Sample("check_duration_seconds", self.seconds)
        return (*rows, *times, *self.found.samples)

    def to_json(self) -> dict[str, Any]:
        """Return the report as it is written to JSON."""
        return {
            "address": self.address,
            "state": self.state,
            "moment": round(self.moment, 3),
            "seconds": round(self.seconds, 3),
            "rows": [row.to_json() for row in self.found.rows],
            "samples": [sample.to_json() for sample in self.found.samples],
        }
