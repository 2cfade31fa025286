"""What a running feed shows: the lines under its bar, and Prometheus metrics."""

import dataclasses
import io
import json
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from colbert_vespa.cli.feed_view import FeedView, details
from feeder.feeding.ledger import FeedProgress, FeedSummary
from feeder.feeding.metrics import FeedMetrics
from feeder.sending.statistics import LATENCY_BOUNDS_S, Counts, FeedStatistics
from late_interaction.errors import UsageError

COUNTS = Counts()
for seconds in (0.001, 0.0015, 0.1, 70.0):
    COUNTS.answered(seconds)
SENDING = FeedStatistics(
    in_flight=40, allowed=64, waiting=7, circuit="closed", operations={"put": {"ok": 1_300, "refused": 3}}, retries={"429": 17},
    bytes_sent=9_000_000, latency_ms={"p50": 12.4}, latency_counts=tuple(COUNTS.latency_counts), latency_seconds=70.1025,
)  # fmt: skip
STATE = FeedProgress(
    total=5_000, seconds=10.0, acknowledged=1_131, already_there=100, dead_lettered=3, passages=1_300, token_vectors=90_000,
    bytes=4_000_000, in_flight=48, errors={"HTTP 400": 3}, sending=SENDING,
)  # fmt: skip
LATER = dataclasses.replace(
    STATE, seconds=15.0, acknowledged=2_131, token_vectors=190_000, sending=dataclasses.replace(SENDING, bytes_sent=19_000_000)
)


def test_the_lines_of_a_feed_fit_a_terminal_and_rates_are_of_the_last_seconds():
    lines = details(LATER, STATE)
    assert lines == [
        "  200 documents/s, 20,000 tokens/s, 0.00 MB/s of text, 2.0 MB/s sent",
        "  48 documents in progress, 40 of 64 operations in flight, p50 12 ms",
        "  retried: 17 for 429",
        "  refused: 3 for HTTP 400",
    ]
    assert all(len(line) <= 80 for line in lines)
    assert details(FeedProgress(0), FeedProgress(0))[1:] == ["  0 documents in progress"]
    outage = dataclasses.replace(LATER, sending=dataclasses.replace(SENDING, circuit="half-open"))
    assert "  Vespa does not answer" in "\n".join(details(outage, STATE))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(terminal):
    file = io.StringIO()
    states = [STATE]
    with FeedView(Console(file=file, force_terminal=terminal, width=80), lambda: states[-1]) as view:
        states.append(LATER)
        view.refresh()
    shown = file.getvalue()
    if not terminal:
        assert shown == ""
        return
    assert "2234/5000" in shown and "left" in shown and "200 documents/s" in shown and "operations in flight" in shown
    assert "…" not in shown


def test_rates_forget_what_was_long_ago():
    states = [FeedProgress(1_000, seconds=float(second), acknowledged=100 * min(second, 20)) for second in range(40)]
    with FeedView(Console(file=io.StringIO(), force_terminal=True, width=80), lambda: states[0]) as view:
        for now in states:
            view._state = lambda now=now: now
            lines = [str(line) for line in view.get_renderables()]
    assert "  0 documents/s" in lines[1]


def scraped(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name.removeprefix("colbert_vespa_feed_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_are_of_the_moment_and_end_with_the_feed():
    states = [FeedProgress(0)]
    with FeedMetrics(0, lambda: states[-1]) as metrics:
        assert scraped(metrics.port)["documents_total", "acknowledged"] == 0
        states.append(STATE)
        found = scraped(metrics.port)
        with pytest.raises(UsageError, match=f"port {metrics.port} of 127.0.0.1"):
            FeedMetrics(metrics.port, lambda: STATE)
    wanted = {
        ("expected_documents",): 5_000,
        ("documents_total", "acknowledged"): 1_131,
        ("documents_total", "already_there"): 100,
        ("documents_total", "dead_lettered"): 3,
        ("refused_total", "HTTP 400"): 3,
        ("token_vectors_total",): 90_000,
        ("in_flight",): 48,
        ("operations_total", "put", "refused"): 3,
        ("retries_total", "429"): 17,
        ("operations_in_flight",): 40,
        ("operations_allowed",): 64,
        ("circuit", "closed"): 1,
        ("circuit", "half-open"): 0,
        ("latency_seconds_bucket", "0.001"): 1,
        ("latency_seconds_bucket", "0.002"): 2,
        ("latency_seconds_bucket", "0.1"): 3,
        ("latency_seconds_bucket", "60.0"): 3,
        ("latency_seconds_bucket", "+Inf"): 4,
        ("latency_seconds_count",): 4,
        ("latency_seconds_sum",): 70.1025,
    }
    assert {name: found[name] for name in wanted} == wanted
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", metrics.port), timeout=5):
        pass
    with pytest.raises(UsageError, match="65535"):
        FeedMetrics(70_000, lambda: STATE)


def test_the_summary_has_the_same_figures():
    summary = FeedSummary(
        "there", 5_000, acknowledged=1_000, token_vectors=90_000, bytes=4_000_000, seconds=10.0, sending=SENDING
    )
    found = json.loads(json.dumps(summary.to_json()))
    assert (found["documents_per_s"], found["tokens_per_s"], found["mb_per_s"]) == (100.0, 9_000.0, 0.4)
    assert (found["sending"]["allowed"], found["sending"]["retries"]) == (64, {"429": 17})
    assert len(found["sending"]["latency_counts"]) == len(LATENCY_BOUNDS_S) + 1
    assert FeedSummary("there", 0).to_json()["documents_per_s"] == 0.0


def test_a_feed_is_watched_while_it_runs(cli, application, vespa, tiny_bundle, tmp_path):
    """Vespa itself looks at the metrics when it is given a document."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    source = tmp_path / "documents.jsonl"
    source.write_text("".join(json.dumps({"id": f"d{n}", "text": "x", "year": n}) + "\n" for n in range(40)))
    seen = []
    took = vespa.took

    def watching(method, id_, body):
        if method == "POST" and not seen:
            seen.append(scraped(port))
        return took(method, id_, body)

    vespa.took = watching
    done = cli("feed", str(source), "--to", vespa.url, "--bundle", str(tiny_bundle.path), "--metrics", str(port),
               "--journal", str(tmp_path / "j"), "--json")  # fmt: skip
    assert seen[0]["expected_documents",] == 40 and seen[0]["operations_in_flight",] >= 1
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["acknowledged"], summary["sending"]["operations"]) == (40, {"put": {"ok": 40}})
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if line.startswith("fed 40 documents")]
