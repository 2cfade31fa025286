"""Prometheus metrics of a running feed, over HTTP on this machine alone."""

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
    """As a context manager it serves `http://127.0.0.1:port/metrics`: what `state` says when it is asked, and nothing while it
    is None. Port 0 takes any free one, and `port` says which."""

    def __init__(self, port: int, state: Callable[[], FeedProgress] | None = None) -> None:
        """Raises: UsageError where the port is none or cannot be had."""
        if not 0 <= port <= 65_535:
            raise UsageError(f"--metrics takes a port from 0 to 65535, got {port}")
        self.state = state
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            raise UsageError(f"--metrics: port {port} of {HOST} cannot be had ({error.strerror}): choose another one") from None
        self.port: int = self._server.server_port

    def collect(self) -> Iterator[Metric]:
        if self.state is None:
            return
        state = self.state()
        outcomes = {name: getattr(state, name) for name in ("acknowledged", "already_there", "absent", "dead_lettered")}
        yield _gauge("expected_documents", "Documents of the sources, blank ones and duplicates left out.", state.total)
        yield _counter("documents", "Documents, by what became of them.", outcomes, "outcome")
        yield _counter("refused", "Refused documents, by reason.", state.errors, "reason")
        yield _counter("passages", "Passages that were handed over.", {"": state.passages})
        yield _counter("token_vectors", "Token vectors that were handed over.", {"": state.token_vectors})
        yield _counter("text_bytes", "Bytes of the texts that were handed over.", {"": state.bytes})
        yield _gauge("in_flight", "Documents that were handed over and are not settled.", state.in_flight)
        yield _gauge("seconds", "Since the feed began.", state.seconds)
        if state.sending is not None:
            yield from _of_sending(state.sending)

    def __enter__(self) -> FeedMetrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _of_sending(sending: FeedStatistics) -> Iterator[Metric]:
    operations = CounterMetricFamily(f"{PREFIX}operations", "Operations that are finished.", labels=["kind", "outcome"])
    for kind, outcomes in sending.operations.items():
        for outcome, count in outcomes.items():
            operations.add_metric([kind, outcome], count)
    yield operations
    yield _counter("retries", "Operations sent again, by HTTP status, or transport.", sending.retries, "reason")
    yield _counter("sent_bytes", "Bytes of bodies, as they went out.", {"": sending.bytes_sent})
    yield _gauge("operations_in_flight", "Operations that are sent and not answered.", sending.in_flight)
    yield _gauge("operations_allowed", "How many may be in flight, by the throttle.", sending.allowed)
    yield _gauge("operations_waiting", "Operations that are not sent yet, or are to be sent again.", sending.waiting)
    circuit = GaugeMetricFamily(f"{PREFIX}circuit", "1 for the state that the circuit breaker is in.", labels=["state"])
    for name in get_args(Circuit):
        circuit.add_metric([name], float(name == sending.circuit))
    yield circuit
    latency = HistogramMetricFamily(f"{PREFIX}latency_seconds", "From sending an operation to its answer.")
    bounds = [*map(str, LATENCY_BOUNDS_S), "+Inf"]
    buckets = list(zip(bounds, map(float, itertools.accumulate(sending.latency_counts)), strict=True))
    latency.add_metric([], buckets, sending.latency_seconds)
    yield latency


def _counter(name: str, about: str, counts: Mapping[str, float], label: str = "") -> Metric:
    """label: whose values the names in `counts` are."""
    family = CounterMetricFamily(PREFIX + name, about, labels=[label] if label else [])
    for value, count in counts.items():
        family.add_metric([value] if label else [], count)
    return family


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value)
