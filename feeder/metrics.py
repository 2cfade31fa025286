"""Prometheus metrics of a running feed, over HTTP on this machine alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from feeder.ledger import FeedProgress
from late_interaction.errors import UsageError

__all__ = ["FeedMetrics"]

HOST = "127.0.0.1"
_Numbers = tuple[tuple[str, str, Callable[[FeedProgress], float]], ...]
_COUNTERS: _Numbers = (
    ("documents_done", "Documents acknowledged, already there, or refused.", lambda state: state.done),
    ("passages", "Passages that were handed over.", lambda state: state.passages),
    ("token_vectors", "Token vectors that were handed over.", lambda state: state.token_vectors),
    ("text_bytes", "Bytes of the texts that were handed over.", lambda state: state.bytes),
)
_GAUGES: _Numbers = (
    ("documents", "Documents of the sources, blank ones and duplicates left out.", lambda state: state.total),
    ("in_flight", "Documents that were handed over and not acknowledged.", lambda state: state.in_flight),
    ("seconds", "Since the feed began.", lambda state: state.seconds),
)
_TARGET = "What the target says of itself: operations in flight and allowed, retries, latencies in milliseconds, bytes sent."


class FeedMetrics(Collector):
    """A progress callback that keeps the latest state for whoever scrapes it, and hands it on to another one.

    As a context manager it serves `http://127.0.0.1:port/metrics`; port 0 takes any free one, and `port` says which.
    """

    def __init__(self, port: int, then: Callable[[FeedProgress], None] | None = None) -> None:
        """Raises: UsageError where the port is none or cannot be had."""
        if not 0 <= port <= 65_535:
            raise UsageError(f"--metrics takes a port from 0 to 65535, got {port}")
        self._state = FeedProgress(0, 0, 0, 0.0)
        self._then = then
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, HOST, registry)
        except OSError as error:
            raise UsageError(f"--metrics: port {port} of {HOST} cannot be had ({error.strerror}): choose another one") from None
        self.port: int = self._server.server_port

    def __call__(self, state: FeedProgress) -> None:
        self._state = state
        if self._then is not None:
            self._then(state)

    def collect(self) -> Iterator[Metric]:
        state = self._state
        for name, about, value in _COUNTERS:
            yield CounterMetricFamily(f"colbert_vespa_feed_{name}", about, value(state))
        for name, about, value in _GAUGES:
            yield GaugeMetricFamily(f"colbert_vespa_feed_{name}", about, value(state))
        errors = CounterMetricFamily("colbert_vespa_feed_refused", "Refused documents, by reason.", labels=["reason"])
        for reason, count in state.errors.items():
            errors.add_metric([reason], count)
        yield errors
        target = GaugeMetricFamily("colbert_vespa_feed_target", _TARGET, labels=["name"])
        for name, number in state.target.items():
            target.add_metric([name], number)
        yield target

    def __enter__(self) -> FeedMetrics:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
