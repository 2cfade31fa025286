"""Capacity, latency and degraded queries, from the metrics that a container collects from all hosts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from colbert_vespa.monitor.http_client import HttpClient
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.report import OK, UNKNOWN, WARNING, WRONG, CheckRow, Sample, Section

__all__ = ["Figures", "figures_of", "look_at_metrics", "metric_rows"]

PATH = "/metrics/v2/values"
SEARCHNODE, CONTAINER, CONTROLLER = "vespa.searchnode", "vespa.container", "vespa.container-clustercontroller"
RESOURCES = ("disk", "memory")
STALE_S = 90  # a container gathers once a minute, and of a host that it does not reach goes on telling what it had last


@dataclass(frozen=True)
class Figures:
    """Figures reported by the hosts of an application.

    Attributes:
        silent: Hosts that reported nothing, or nothing new.
        used: Used share of each resource, as resource -> host -> share.
        limits: Share of each resource at which feeding is blocked.
        queries: Queries per second, by host.
        degraded: Degraded queries per second, by host.
        failed: Failed queries per second, by host.
        latency_s: Seconds of a query, as quantile -> host -> seconds.
    """

    hosts: tuple[str, ...]
    silent: tuple[str, ...]
    used: Mapping[str, Mapping[str, float]]
    limits: Mapping[str, float]
    above_limit: float
    blocked_on: tuple[str, ...]
    queries: Mapping[str, float]
    degraded: Mapping[str, float]
    failed: Mapping[str, float]
    latency_s: Mapping[str, Mapping[str, float]]


def look_at_metrics(http: HttpClient, url: str, limits: WarningLimits) -> Section:
    """Ask for the metrics of all hosts, and return the checks.

    Raises:
        VespaError: If Vespa does not answer.
        UsageError: If the address is not valid.
        KeyError: If the answer has another shape; also TypeError and ValueError.
    """
    # a container waits 5 s for a host that is cut off before it answers for the others
    answer = http.json(url, PATH, parameters={"consumer": "vespa"}, timeout=max(http.timeout, 8.0))
    return metric_rows(figures_of(answer), limits)


def figures_of(answer: Mapping[str, Any]) -> Figures:
    """Return the figures of an answer of the metrics API.

    Raises:
        KeyError: If the answer has another shape; also TypeError and ValueError.
    """
    told_at = {
        str(node["hostname"]): max((int(service["timestamp"]) for service in node.get("services", ())), default=0)
        for node in answer["nodes"]
    }
    since = max(told_at.values(), default=0) - STALE_S
    silent = tuple(host for host, at in told_at.items() if not at or at < since)
    nodes = [node for node in answer["nodes"] if str(node["hostname"]) not in silent]

    containers = dict.fromkeys((host for host, service in _services(nodes) if service["name"] == CONTAINER), 0.0)

    def most(service: str, name: str) -> dict[str, float]:
        by_host: dict[str, float] = {}
        for host, value in _values(nodes, service, name):
            by_host[host] = max(by_host.get(host, value), value)
        return by_host

    def rate(name: str) -> dict[str, float]:
        """Return a rate of the last minute by host; containers omit metrics without a value."""
        by_host = dict(containers)
        for host, value in _values(nodes, CONTAINER, f"{name}.rate"):
            by_host[host] += value
        return by_host

    used = {name: most(SEARCHNODE, f"content.proton.resource_usage.{name}.average") for name in RESOURCES}
    told = {name: most(CONTROLLER, f"cluster-controller.resource_usage.{name}_limit.max") for name in RESOURCES}
    above = most(CONTROLLER, "cluster-controller.resource_usage.nodes_above_limit.max")
    blocked = most(SEARCHNODE, "content.proton.resource_usage.feeding_blocked.max")
    latency = {
        f"0.{percent}": {host: value / 1000 for host, value in most(CONTAINER, f"query_latency.{percent}percentile").items()}
        for percent in (95, 99)
    }
    return Figures(
        tuple(told_at), silent, used,
        limits={name: max(values.values()) for name, values in told.items() if any(values.values())},
        above_limit=max(above.values(), default=0.0),
        blocked_on=tuple(sorted(host for host, value in blocked.items() if not value <= 0)),
        queries=rate("queries"), degraded=rate("degraded_queries"), failed=rate("failed_queries"), latency_s=latency,
    )  # fmt: skip


def _services(nodes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for node in nodes:
        for service in node.get("services", ()):
            yield str(node["hostname"]), service


def _values(nodes: Sequence[Mapping[str, Any]], service: str, name: str) -> Iterator[tuple[str, float]]:
    for host, own in _services(nodes):
        if own["name"] == service:
            for item in own.get("metrics", ()):
                if name in item["values"]:
                    yield host, float(item["values"][name])


def metric_rows(figures: Figures, limits: WarningLimits) -> Section:
    """Return the checks of these figures and their samples."""
    room = [_room(name, figures, limits) for name in RESOURCES]
    rows = [_told(figures), *room, _feeding(figures), *_queries(figures, limits)]
    samples = [Sample("feed_blocked", float(_blocked(figures)))]
    for name in RESOURCES:
        samples += [Sample(f"{name}_used_ratio", value, {"host": host}) for host, value in figures.used[name].items()]
    samples += [Sample("feed_limit_ratio", value, {"resource": name}) for name, value in figures.limits.items()]
    rates = {"queries": figures.queries, "degraded_queries": figures.degraded, "failed_queries": figures.failed}
    samples += [
        Sample(f"{name}_per_second", value, {"host": host}) for name, found in rates.items() for host, value in found.items()
    ]
    samples += [
        Sample("query_latency_seconds", value, {"host": host, "quantile": quantile})
        for quantile, found in figures.latency_s.items()
        for host, value in found.items()
    ]
    return Section(tuple(rows), tuple(samples))


def _worst(by_host: Mapping[str, float]) -> tuple[str, float]:
    """Return the host with the largest value; NaN counts as the largest."""
    return max(by_host.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])


def _told(figures: Figures) -> CheckRow:
    if figures.silent:
        missing = ", ".join(figures.silent)
        return CheckRow("metrics", "hosts", WARNING, f"none from {missing}: figures below lack them")
    return CheckRow(
        "metrics", "hosts", OK, f"from {len(figures.hosts)} of {len(figures.hosts)} hosts, of the last minute or two"
    )


def _room(name: str, figures: Figures, limits: WarningLimits) -> CheckRow:
    used, limit = figures.used[name], figures.limits.get(name)
    if not used:
        return CheckRow("room", name, UNKNOWN, "no content node reports its use")
    host, most = _worst(used)
    says = f"{most:.0%} used on {host}"
    if limit is None:
        return CheckRow("room", name, UNKNOWN, f"{says}; the cluster controller does not report where feeding stops")
    says += f", feeding stops at {limit:.0%}"
    if not most < limit:
        return CheckRow("room", name, WRONG, says)
    near = not most < limits.feed_share * limit
    return CheckRow("room", name, WARNING if near else OK, f"{says}: add nodes before it does" if near else says)


def _blocked(figures: Figures) -> bool:
    return not figures.above_limit <= 0 or bool(figures.blocked_on)


def _feeding(figures: Figures) -> CheckRow:
    if not figures.used and not figures.limits:
        return CheckRow("room", "feeding", UNKNOWN, "no content node or cluster controller reports it")
    if not _blocked(figures):
        return CheckRow("room", "feeding", OK, "open")
    where = f"content nodes above a limit: {figures.above_limit:.0f}" if figures.above_limit else ", ".join(figures.blocked_on)
    return CheckRow(
        "room", "feeding", WRONG, f"BLOCKED, documents are refused with 507 ({where}): add nodes or delete documents"
    )


def _queries(figures: Figures, limits: WarningLimits) -> Iterator[CheckRow]:
    rate = sum(figures.queries.values())
    if not figures.queries:
        yield CheckRow("queries", "rate", UNKNOWN, "no container reports it")
        return
    yield CheckRow("queries", "rate", OK, f"{rate:.2g} a second" if rate else "none in the last minute")
    slow = figures.latency_s["0.99"]
    if rate and slow:
        host, p99 = _worst(slow)
        says = f"p99 {1000 * p99:.0f} ms on {host}, p95 {1000 * max(figures.latency_s['0.95'].values(), default=0.0):.0f} ms"
        late = not p99 <= limits.p99_s
        says += f"; limit {1000 * limits.p99_s:.0f} ms" if late else ""
        yield CheckRow("queries", "latency", WARNING if late else OK, says)
    for name, found, limit in (
        ("degraded", figures.degraded, limits.degraded),
        ("failed", figures.failed, limits.failed),
    ):
        count = sum(found.values())
        share = count / max(rate, count) if count else 0.0
        yield CheckRow("queries", name, WRONG if not share <= limit else OK, f"{share:.2%} of them" if count else "none")
