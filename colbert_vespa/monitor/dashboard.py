"""The Grafana dashboard, in the form that provisioning reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from colbert_vespa.monitor.report import OK, STATES, UNKNOWN, WARNING, WRONG

__all__ = ["DATASOURCE", "PANELS", "Panel", "dashboard_file"]

DATASOURCE = "prometheus"  # uid
COLORS = {OK: "green", WARNING: "yellow", UNKNOWN: "purple", WRONG: "red"}
WIDTH = 24  # columns of Grafana's grid


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of the dashboard.

    Attributes:
        queries: Expression and legend of each line.
        unit: Unit, as Grafana names it.
        worse: Value from which the line is red.
    """

    title: str
    kind: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    worse: float | None = None
    width: int = 8
    height: int = 7


def _stat(title: str, expression: str, worse: float | None = None) -> Panel:
    return Panel(title, "stat", ((expression, ""),), worse=worse, width=4, height=4)


def _lines(title: str, *queries: tuple[str, str], unit: str = "short") -> Panel:
    return Panel(title, "timeseries", queries, unit)


def _room(resource: str) -> Panel:
    limit = f'max(colbert_vespa_feed_limit_ratio{{resource="{resource}"}})'
    used = f"colbert_vespa_{resource}_used_ratio"
    return _lines(f"{resource.title()}, and where feeding stops", (used, "{{host}}"), (limit, "limit"), unit="percentunit")


PANELS = (
    Panel("State", "stat", (("max(colbert_vespa_state)", ""),), unit="state", width=4, height=4),
    _stat("Canaries broken or silent", 'sum(colbert_vespa_canaries{outcome!="kept"})', worse=1),
    _stat("Feeding blocked", "max(colbert_vespa_feed_blocked)", worse=1),
    _stat("Services that do not answer", 'sum(colbert_vespa_services{answers="no"})', worse=1),
    _stat("Content nodes not up", 'sum(colbert_vespa_content_nodes{state!="up"})', worse=1),
    _stat("Documents", "sum(colbert_vespa_documents)"),
    Panel("What is not fine", "table", (("colbert_vespa_state > 0", ""),), unit="state", width=WIDTH, height=6),
    _lines("Queries a second", ("colbert_vespa_queries_per_second", "{{host}}"), unit="reqps"),
    _lines("Query latency", ("colbert_vespa_query_latency_seconds", "p{{quantile}} {{host}}"), unit="s"),
    _lines(
        "Degraded and failed queries a second",
        ("sum(colbert_vespa_degraded_queries_per_second)", "degraded"),
        ("sum(colbert_vespa_failed_queries_per_second)", "failed"),
        unit="reqps",
    ),
    _room("disk"),
    _room("memory"),
    _lines("Documents by index", ("colbert_vespa_documents", "{{index}}")),
    _lines("Canaries", ("colbert_vespa_canaries", "{{outcome}}")),
    _lines("Canary latency", ("colbert_vespa_canary_latency_seconds", "quantile {{quantile}}"), unit="s"),
    _lines("Drift from the baseline", ("colbert_vespa_drift_distance", "{{of}}")),
)


def dashboard_file() -> str:
    """Return the Grafana dashboard as JSON."""
    panels, left, top, height = [], 0, 0, 0
    for number, panel in enumerate(PANELS, start=1):
        if left + panel.width > WIDTH:
            left, top, height = 0, top + height, 0
        panels.append(_panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": panel.height}))
        left, height = left + panel.width, max(height, panel.height)
    data = {
        "uid": "colbert-vespa", "title": "colbert-vespa", "schemaVersion": 39, "version": 1, "editable": False,
        "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "utc", "tags": ["vespa"], "panels": panels,
    }  # fmt: skip
    return json.dumps(data, indent=1) + "\n"


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    targets = [
        {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend, "instant": instant, "range": not instant}
        | ({"format": "table"} if panel.kind == "table" else {})
        for n, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number, "title": panel.title, "type": panel.kind, "gridPos": place,
        "datasource": {"type": "prometheus", "uid": DATASOURCE},
        "targets": targets, "fieldConfig": {"defaults": _defaults(panel), "overrides": []}, "options": _options(panel),
    }  # fmt: skip


def _defaults(panel: Panel) -> dict[str, Any]:
    if panel.unit == "state":
        names = {str(value): {"text": name, "color": COLORS[name], "index": value} for name, value in STATES.items()}
        colors = [{"color": COLORS[name], "value": value or None} for name, value in STATES.items()]
        return {"mappings": [{"type": "value", "options": names}], "thresholds": {"mode": "absolute", "steps": colors}}
    steps: list[dict[str, Any]] = [{"color": "green" if panel.worse is not None else "blue", "value": None}]
    if panel.worse is not None:
        steps.append({"color": "red", "value": panel.worse})
    return {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {}
