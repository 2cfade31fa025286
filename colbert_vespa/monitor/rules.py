"""Prometheus alert rules over the metrics of the exporter, with the limits of the table."""

from __future__ import annotations

import json
from dataclasses import dataclass

from colbert_vespa.monitor.limits import WarningLimits

__all__ = ["Rule", "rules", "rules_file"]

PAGE, TICKET = "critical", "warning"


@dataclass(frozen=True, slots=True)
class Rule:
    """An alerting rule.

    Attributes:
        lasting: How long the expression must hold, as Prometheus writes durations.
        does: What to do.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    does: str


def rules(limits: WarningLimits) -> tuple[Rule, ...]:
    """Return the alerting rules for these limits."""
    return (*_health(), *_room(limits), *_answers(limits), *_drift(limits))


def _health() -> tuple[Rule, ...]:
    return (
        Rule(
            "MonitorSilent",
            "absent(colbert_vespa_checked_timestamp_seconds) or time() - colbert_vespa_checked_timestamp_seconds > 300",
            "5m", PAGE, "Nobody looks at Vespa", "start colbert-vespa monitor ADDRESS --prometheus, and see why it ended",
        ),
        Rule(
            "HostDown", 'colbert_vespa_services{answers="yes"} == 0', "1m", PAGE,
            "No service of {{ $labels.host }} answers",
            "the host is down or unreachable: bring it back with its disk, or replace it by one of the same name",
        ),
        Rule(
            "ServiceDown",
            'colbert_vespa_services{answers="no"} > 0 and on (host) colbert_vespa_services{answers="yes"} > 0', "2m", PAGE,
            "{{ $value }} services of {{ $labels.host }} do not answer, others do", "see vespa.log there for why they ended",
        ),
        Rule(
            "ContentNodeNotUp", 'sum by (state) (colbert_vespa_content_nodes{state!="up"}) > 0', "2m", TICKET,
            "{{ $value }} content nodes are {{ $labels.state }}", "see docs/how-to/monitoring.md, incidents",
        ),
        Rule(
            "PartWrong", 'colbert_vespa_state{area=~"application|config server|index"} == 3', "2m", PAGE,
            "{{ $labels.area }} {{ $labels.name }} is wrong", "run colbert-vespa monitor ADDRESS: it says why",
        ),
        Rule(
            "PartUnknown", "colbert_vespa_state == 2", "10m", TICKET,
            "{{ $labels.area }} {{ $labels.name }} cannot be seen", "run colbert-vespa monitor ADDRESS: it says why",
        ),
    )  # fmt: skip


def _room(limits: WarningLimits) -> tuple[Rule, ...]:
    found = [
        Rule(
            "FeedBlocked", "colbert_vespa_feed_blocked > 0", "1m", PAGE, "Vespa refuses documents",
            "add content nodes, or delete documents; queries go on",
        )
    ]  # fmt: skip
    for resource in ("disk", "memory"):
        limit = f'on () group_left () max(colbert_vespa_feed_limit_ratio{{resource="{resource}"}})'
        used = f"colbert_vespa_{resource}_used_ratio"
        found.append(
            Rule(
                f"{resource.title()}NearFeedBlock", f"{used} / {limit} > {limits.feed_share:g}", "15m", TICKET,
                f"{resource.title()} of {{{{ $labels.host }}}} is near the limit at which feeding stops", "add content nodes",
            )
        )  # fmt: skip
    found.append(
        Rule(
            "DiskFullSoon",
            "predict_linear(colbert_vespa_disk_used_ratio[6h], 3 * 86400) > "
            'on () group_left () max(colbert_vespa_feed_limit_ratio{resource="disk"})',
            "1h", TICKET, "The disk of {{ $labels.host }} reaches the limit of feeding within three days", "add content nodes",
        )
    )  # fmt: skip
    return tuple(found)


def _answers(limits: WarningLimits) -> tuple[Rule, ...]:
    queries = "sum(colbert_vespa_queries_per_second)"
    return (
        Rule(
            "AnswersIncomplete", "colbert_vespa_coverage_ratio < 1", "2m", PAGE,
            "Answers of {{ $labels.index }} lack documents", "a content node is down or slow: see services and content",
        ),
        Rule(
            "DocumentsVanished",
            f"colbert_vespa_documents < {1 - limits.fewer:g} * max_over_time(colbert_vespa_documents[6h])", "5m", PAGE,
            "{{ $labels.index }} has lost documents within six hours",
            "deleted by a feed, or on a node that is lost: Vespa calls answers full until others have taken over",
        ),
        Rule(
            "QueriesSlow", f'colbert_vespa_query_latency_seconds{{quantile="0.99"}} > {limits.p99_s:g}', "10m", TICKET,
            "p99 of queries at {{ $labels.host }} is {{ $value | humanizeDuration }}",
            "rerank less, add groups or containers: colbert-vespa plan --queries-per-second",
        ),
        Rule(
            "QueriesDegraded", f"sum(colbert_vespa_degraded_queries_per_second) / ({queries} > 0) > {limits.degraded:g}", "5m",
            PAGE, "{{ $value | humanizePercentage }} of the queries are answered without all documents",
            "nodes run out of time or are down",
        ),
        Rule(
            "QueriesFailed", f"sum(colbert_vespa_failed_queries_per_second) / ({queries} > 0) > {limits.failed:g}", "5m", PAGE,
            "{{ $value | humanizePercentage }} of the queries fail", "see the container's log",
        ),
        Rule(
            "CanariesBroken", 'colbert_vespa_canaries{outcome="broken"} > 0', "2m", PAGE,
            "{{ $value }} golden queries do not answer as they did",
            "colbert-vespa monitor ADDRESS --canaries says which and why",
        ),
        Rule(
            "CanariesSilent", 'colbert_vespa_canaries{outcome="silent"} > 0', "5m", PAGE,
            "{{ $value }} golden queries get no answer", "see the container's health and log",
        ),
    )  # fmt: skip


def _drift(limits: WarningLimits) -> tuple[Rule, ...]:
    kinds = (
        ("lengths|scores", limits.distance),
        ("unknown_tokens", limits.unknown),
        ("centroids|stored_vectors", limits.centroids),
    )
    alternatives = [f'colbert_vespa_drift_distance{{of=~"{of}"}} > {limit:g}' for of, limit in kinds]
    return (
        Rule(
            "Drift", " or ".join(alternatives), "2h", TICKET, "{{ $labels.of }} have moved by {{ $value }} from the baseline",
            "other documents than at first: see docs/how-to/monitoring.md, drift",
        ),
    )  # fmt: skip


def rules_file(limits: WarningLimits) -> str:
    """Return the rules as Prometheus reads them."""
    lines = [
        "# Made by `colbert-vespa monitor files`; change colbert_vespa/monitor/rules.py.",
        "groups:",
        "  - name: colbert-vespa",
        "    rules:",
    ]
    for rule in rules(limits):
        lines += [
            f"      - alert: {rule.name}",
            f"        expr: {json.dumps(rule.expression)}",
            f"        for: {rule.lasting}",
            f"        labels: {{severity: {rule.severity}}}",
            "        annotations:",
            f"          summary: {json.dumps(rule.summary)}",
            f"          description: {json.dumps(rule.does)}",
        ]
    return "\n".join(lines) + "\n"
