"""Write the files that Prometheus and Grafana of docker-compose.yml read, as one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from colbert_vespa.monitor.dashboard import DATASOURCE, dashboard_file
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.rules import rules_file
from late_interaction.files import atomic_write, check_own_output

__all__ = ["EXPORTER_PORT", "monitoring_files", "write_files"]

EXPORTER_PORT = 9108
MADE = "# Made by `colbert-vespa monitor files`; change colbert_vespa/monitor/files.py.\n"

PROMETHEUS = f"""\
{MADE}global:
  scrape_interval: 30s
  evaluation_interval: 30s
rule_files: [rules.yml]
# alerting:
#   alertmanagers: [{{static_configs: [{{targets: ["alertmanager:9093"]}}]}}]
scrape_configs:
  - job_name: colbert-vespa  # colbert-vespa monitor ADDRESS --prometheus 0.0.0.0:{EXPORTER_PORT}, on the host
    static_configs: [{{targets: ["host.docker.internal:{EXPORTER_PORT}"]}}]
  - job_name: vespa  # Vespa's own metrics, for dashboards of your own
    metrics_path: /prometheus/v1/values
    static_configs: [{{targets: ["vespa:8080"]}}]
"""

SOURCES = f"""\
{MADE}apiVersion: 1
datasources:
  - {{name: Prometheus, uid: {DATASOURCE}, type: prometheus, access: proxy, url: "http://prometheus:9090", isDefault: true}}
"""

DASHBOARDS = f"""\
{MADE}apiVersion: 1
providers:
  - {{name: colbert-vespa, type: file, options: {{path: /var/lib/grafana/dashboards}}}}
"""


def monitoring_files(limits: WarningLimits) -> Mapping[str, str]:
    """Return the text of each file by its path."""
    return {
        "prometheus/prometheus.yml": PROMETHEUS,
        "prometheus/rules.yml": rules_file(limits),
        "grafana/dashboards/colbert-vespa.json": dashboard_file(),
        "grafana/provisioning/dashboards/colbert-vespa.yml": DASHBOARDS,
        "grafana/provisioning/datasources/prometheus.yml": SOURCES,
    }


def write_files(folder: Path, limits: WarningLimits) -> tuple[str, ...]:
    """Write the files and return their paths in `folder`.

    Raises:
        UsageError: If one of the files exists and is not ours; nothing is written then.
    """
    files = monitoring_files(limits)
    for name in files:
        check_own_output(folder / name, "colbert-vespa")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text.encode())
    return tuple(files)
