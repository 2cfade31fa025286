"""What Prometheus is told, over HTTP; and the loop that goes on looking."""

from __future__ import annotations

import io
import json
import socket

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.monitor_command import go_on
from colbert_vespa.monitor.checks import Monitor, Watched
from colbert_vespa.monitor.exporter import parse_listen, serving
from colbert_vespa.monitor.report import METRICS, PREFIX
from late_interaction.errors import UsageError


def fetched(url):
    text = httpx.get(url, timeout=10).raise_for_status().text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_is_told(cluster):
    cluster.down = {("node3", "searchnode")}
    with Monitor(Watched(cluster.url, (cluster.url,), timeout=60.0)) as monitor:
        report = monitor.look()
    with serving(("127.0.0.1", 0)) as (exporter, url):
        assert fetched(url) == {}
        exporter.show(report)
        found = fetched(url)
    assert len(found) == len(report.samples())
    assert found["colbert_vespa_documents", (("index", "passage"),)] == 1200
    assert found["colbert_vespa_state", (("area", "services"), ("name", "node3"))] == 3
    assert found["colbert_vespa_services", (("answers", "no"), ("host", "node3"))] == 1
    assert found["colbert_vespa_query_latency_seconds", (("host", "node1"), ("quantile", "0.99"))] == 0.08
    assert found["colbert_vespa_degraded_queries_per_second", (("host", "node1"),)] == 0
    assert {name.removeprefix(PREFIX) for name, _ in found} <= set(METRICS)


def test_a_port_in_use_is_a_usage_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} is not available"), serving(("127.0.0.1", port)):
            pass


def test_where_it_listens():
    assert parse_listen("9108") == ("127.0.0.1", 9108)
    assert parse_listen("0.0.0.0:9108") == ("0.0.0.0", 9108)
    assert parse_listen("[::1]:9108") == ("::1", 9108)
    for text in ("", "x", "host:", "70000", "-1", "9108/metrics"):
        with pytest.raises(UsageError):
            parse_listen(text)


class Enough(Exception):
    pass


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("json_output", [False, True])
def test_watching_shows_what_changes(cluster, capsys, json_output, terminal):
    out = Output(json_output=json_output)
    screen = io.StringIO()
    out.console = Console(file=screen, width=80, force_terminal=terminal, highlight=False)
    waited, scraped = [], []

    def wait(seconds):
        waited.append(seconds)
        url = next(word for word in screen.getvalue().split() if word.startswith("http") and "metrics" in word)
        scraped.append(fetched(url.rstrip(","))["colbert_vespa_feed_blocked", ()])
        cluster.blocked = True
        if len(waited) == 2:
            raise Enough

    with Monitor(Watched(cluster.url, (cluster.url,), timeout=60.0)) as monitor, pytest.raises(Enough):
        go_on(out, monitor, 7.0, show=True, listen=("127.0.0.1", 0), wait=wait)
    assert waited == [7.0, 7.0]
    assert scraped == [0.0, 1.0]
    assert "BLOCKED" in screen.getvalue()
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["state"] for line in lines] == (["ok", "wrong"] if json_output else [])
