"""Serve the last report to Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from colbert_vespa.monitor.report import METRICS, PREFIX, HealthReport, Sample
from late_interaction.errors import UsageError
from late_interaction.extras import required

with required("monitor", "--prometheus"):
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

__all__ = ["Exporter", "parse_listen", "serving"]

LOCAL = "127.0.0.1"
LAST_PORT = 65535


class Exporter(Collector):
    """Serves the last report; nothing before the first."""

    def __init__(self) -> None:
        self._samples: tuple[Sample, ...] = ()

    def show(self, report: HealthReport) -> None:
        """Export the samples of this report from now on."""
        self._samples = report.samples()

    def collect(self) -> Iterable[Metric]:
        """Return the current samples as gauges, one family for each metric."""
        families: dict[str, GaugeMetricFamily] = {}
        for sample in self._samples:
            text, labels = METRICS[sample.metric]
            if sample.metric not in families:
                families[sample.metric] = GaugeMetricFamily(PREFIX + sample.metric, text, labels=labels)
            families[sample.metric].add_metric([sample.labels[name] for name in labels], sample.value)
        return families.values()


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of `PORT`, which listens on this machine alone, or `HOST:PORT`.

    Raises:
        UsageError: If the text is not valid.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > LAST_PORT:
        raise UsageError(f"--prometheus must be PORT or HOST:PORT, such as 9108 or 0.0.0.0:9108, got {text!r}")
    return host.strip("[]") or LOCAL, int(port)


@contextmanager
def serving(listen: tuple[str, int]) -> Iterator[tuple[Exporter, str]]:
    """Answer at the yielded address while the context is open.

    Raises:
        UsageError: If something else listens there.
    """
    exporter, registry = Exporter(), CollectorRegistry()
    registry.register(exporter)
    host, port = listen
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"--prometheus {host}:{port} is not available: {error.strerror or error}") from None
    try:
        yield exporter, f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
