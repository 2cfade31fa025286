"""Prometheus metrics of a running feed, over HTTP on this machine only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import get_args

from feeder.feeding.ledger import FeedProgress
from feeder.sending.breaker import Circuit
from feeder.sending.statistics import LATENCY_BOUNDS_S, FeedStatistics
from late_interaction.errors import UsageError
from late_interaction.extras import required

with required("monitor", "--metrics"):
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector

__all__ = ["FeedMetrics"]

HOST = "127.0.0.1"
PREFIX = "colbert_vespa_feed_"


class FeedMetrics(Collector):
    """Serves `http://127.0.0.1:port/metrics` while it is used as a context manager.

    The metrics come from `state`; there are none while it returns None. Port 0 takes any free port; `port` has the actual
    one.
    """

    def __init__(self, port: int, state: Callable[[], FeedProgress] | None = None) -> None:
        """Set the port.

        Raises:
            UsageError: if the port is out of range or not available.
        """
        if not 0 <= port <= 65_535:
            raise UsageError(f"--metrics must be a port from 0 to 65535, got {port}")
        self.state = state
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            raise UsageError(
                f"--metrics: port {port} of {HOST} is not available ({error.strerror}); choose another port"
            ) from None
        self.port: int = self._server.server_port

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        if self.state is None:
            return
        state = self.state()
        outcomes = {name: getattr(state, name) for name in ("acknowledged", "already_there", "absent", "dead_lettered")}
        yield _gauge("expected_documents", "Documents of the sources, without blank ones and duplicates.", state.total)
        yield _counter("documents", "Documents by outcome.", outcomes, "outcome")
        yield _counter("refused", "Rejected documents by reason.", state.errors, "reason")
        yield _counter("passages", "Passages submitted to the target.", {"": state.passages})
        yield _counter("token_vectors", "Token vectors submitted to the target.", {"": state.token_vectors})
        yield _counter("text_bytes", "Bytes of the texts submitted to the target.", {"": state.bytes})
        yield _gauge("in_flight", "Documents submitted to the target without an outcome yet.", state.in_flight)
        yield _gauge("seconds", "Seconds since the feed began.", state.seconds)
        if state.sending is not None:
            yield from _of_sending(state.sending)

    def __enter__(self) -> FeedMetrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _of_sending(sending: FeedStatistics) -> Iterator[Metric]:
    operations = CounterMetricFamily(f"{PREFIX}operations", "Finished operations.", labels=["kind", "outcome"])
    for kind, outcomes in sending.operations.items():
        for outcome, count in outcomes.items():
            operations.add_metric([kind, outcome], count)
    yield operations
    yield _counter("retries", "Retried operations by HTTP status, or transport.", sending.retries, "reason")
    yield _counter("sent_bytes", "Bytes of request bodies as sent.", {"": sending.bytes_sent})
    yield _gauge("operations_in_flight", "Operations sent and not answered.", sending.in_flight)
    yield _gauge("operations_allowed", "Operations that the throttle allows in flight.", sending.allowed)
    yield _gauge("operations_waiting", "Operations waiting to be sent or retried.", sending.waiting)
    circuit = GaugeMetricFamily(f"{PREFIX}circuit", "1 for the current state of the circuit breaker.", labels=["state"])
    for name in get_args(Circuit):
        circuit.add_metric([name], float(name == sending.circuit))
    yield circuit
    latency = HistogramMetricFamily(f"{PREFIX}latency_seconds", "Time from sending an operation to its answer.")
    bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
    buckets = list(zip(bounds, map(float, itertools.accumulate(sending.latency_counts)), strict=True))
    latency.add_metric([], buckets, sending.latency_seconds)
    yield latency


def _counter(name: str, about: str, counts: Mapping[str, float], label: str = "") -> Metric:
    """Make a counter. label: the label whose values are the names in `counts`."""
    family = CounterMetricFamily(PREFIX + name, about, labels=[label] if label else [])
    for value, count in counts.items():
        family.add_metric([value] if label else [], count)
    return family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value)
