"""What a running feed shows: the lines under its bar, and Prometheus metrics."""

import io
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from colbert_vespa.feed_view import FeedView, details
from feeder.ledger import FeedProgress, target_statistics
from feeder.metrics import FeedMetrics
from feeder.sending.statistics import FeedStatistics
from late_interaction.errors import UsageError

STATE = FeedProgress(
    done=1_234, total=5_000, token_vectors=90_000, seconds=10.0, passages=1_300, bytes=4_000_000, in_flight=48,
    errors={"status 400": 3},
    target={"in_flight": 40.0, "allowed": 64.0, "latency_ms.p50": 12.4, "retries.429": 17.0, "bytes_sent": 9e6},
)  # fmt: skip


def test_the_lines_of_a_feed_fit_a_terminal_and_say_everything():
    lines = details(STATE)
    assert lines == [
        "  123 documents/s, 9,000 tokens/s, 0.40 MB/s of text",
        "  48 documents under way, 40 of 64 operations in flight, p50 12 ms",
        "  sent again: 17 for 429",
        "  refused: 3 status 400",
    ]
    assert all(len(line) <= 80 for line in lines)
    assert details(FeedProgress(0, 0, 0, 0.0))[1:] == ["  0 documents under way"]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(terminal):
    file = io.StringIO()
    with FeedView(Console(file=file, force_terminal=terminal, width=80), 5_000) as view:
        view(STATE)
        view.refresh()
    shown = file.getvalue()
    assert ("1234/5000" in shown and "operations in flight" in shown) if terminal else shown == ""


def scraped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_metrics_follow_the_feed_and_end_with_it():
    seen = []
    with FeedMetrics(0, seen.append) as metrics:
        assert scraped(metrics.port)["colbert_vespa_feed_documents_done_total",] == 0
        metrics(STATE)
        found = scraped(metrics.port)
        with pytest.raises(UsageError, match=f"port {metrics.port} of 127.0.0.1 cannot be had"):
            FeedMetrics(metrics.port)
    assert seen == [STATE]
    assert found["colbert_vespa_feed_documents_done_total",] == 1_234
    assert found["colbert_vespa_feed_documents",] == 5_000
    assert found["colbert_vespa_feed_refused_total", "status 400"] == 3
    assert found["colbert_vespa_feed_target", "retries.429"] == 17
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", metrics.port), timeout=5):
        pass
    with pytest.raises(UsageError, match="65535"):
        FeedMetrics(70_000)


def test_what_a_target_says_has_dotted_names():
    class Target:
        def statistics(self):
            return FeedStatistics(1, 2, 3, "closed", {"put": {"ok": 5}}, {"429": 6}, 7, {"p50": 8.5})

    assert target_statistics(Target()) == {
        "in_flight": 1, "allowed": 2, "waiting": 3, "operations.put.ok": 5, "retries.429": 6, "bytes_sent": 7,
        "latency_ms.p50": 8.5,
    }  # fmt: skip
