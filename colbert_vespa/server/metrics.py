"""The metrics that Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from late_interaction.extras import required

with required("serve", "/metrics"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["ServerMetrics"]

PREFIX = "colbert_vespa_serve_"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32)


class ServerMetrics:
    """Metrics of one server, in a separate registry. Labels have few values: routes, not paths."""

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Create the metrics; `running` and `waiting` return the current number of requests."""
        self._registry = own = CollectorRegistry()
        self._requests = Counter(f"{PREFIX}requests", "Responses.", ["method", "route", "status"], registry=own)
        latency = "Time from a request to the end of its response."
        self._latency = Histogram(f"{PREFIX}request_seconds", latency, ["route"], buckets=_SECONDS, registry=own)
        stage = "Duration of a stage of a search."
        self._stages = Histogram(f"{PREFIX}stage_seconds", stage, ["stage"], buckets=_SECONDS, registry=own)
        self._batches = Histogram(f"{PREFIX}encoder_batch", "Queries encoded together.", buckets=_BATCHES, registry=own)
        documents = "Documents put or deleted."
        self._documents = Counter(f"{PREFIX}documents", documents, ["operation", "outcome"], registry=own)
        Gauge(f"{PREFIX}running_requests", "Requests in progress.", registry=own).set_function(running)
        Gauge(f"{PREFIX}waiting_requests", "Requests in the queue.", registry=own).set_function(waiting)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request and its seconds."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def took(self, timings_ms: Mapping[str, float]) -> None:
        """Record the milliseconds of each stage of a search."""
        for stage, ms in timings_ms.items():
            self._stages.labels(stage).observe(ms / 1000)

    def encoded(self, queries: int) -> None:
        """Record the size of a batch of queries that was encoded."""
        self._batches.observe(queries)

    def written(self, operation: str, done: int, refused: int) -> None:
        """Count documents of a write, by outcome."""
        self._documents.labels(operation, "done").inc(done)
        self._documents.labels(operation, "refused").inc(refused)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
