"""The state of the content cluster, from its cluster controller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from colbert_vespa.monitor.http_client import HttpClient
from colbert_vespa.monitor.report import OK, UNKNOWN, WARNING, WRONG, CheckRow, Sample, Section
from colbert_vespa.monitor.services import Service
from late_interaction.errors import VespaError
from vespa_app.package.services import CONTENT_CLUSTER

__all__ = ["content_rows", "look_at_content"]

AREA = "content"
CONTROLLER = "container-clustercontroller"
PATH = f"/cluster/v2/{CONTENT_CLUSTER}"
STATES = {"up": OK, "initializing": WARNING, "retired": WARNING, "maintenance": WARNING}  # all others: wrong


def look_at_content(http: HttpClient, config_urls: Sequence[str], services: Sequence[Service]) -> Section:
    """Check the content cluster by its cluster controllers, which run on the config servers; only one of them answers.

    Raises:
        UsageError: If a URL is not valid.
    """
    ports = sorted({service.port for service in services if service.type == CONTROLLER})
    said = [] if ports else ["no config server reports where it is"]
    for url in config_urls:
        for port in ports:
            place = str(httpx.URL(url).copy_with(port=port, path="/")).rstrip("/")
            try:
                return content_rows(http.json(place, PATH, parameters={"recursive": "true"}))
            except VespaError as error:
                said.append(str(error))
    return Section((CheckRow(AREA, "cluster controller", UNKNOWN, "; ".join(said)),))


def content_rows(answer: Mapping[str, Any]) -> Section:
    """Return the rows for an answer of the cluster controller.

    Raises:
        KeyError: If the answer has another shape; also TypeError and ValueError.
    """
    nodes = {kind: answer["service"][kind]["node"] for kind in ("storage", "distributor")}
    state = answer["state"]["generated"]
    shown = {kind: {key: _node(node) for key, node in found.items()} for kind, found in nodes.items()}
    counts = Counter(name for name, _ in shown["storage"].values())
    up, total = counts["up"], sum(counts.values())
    copies = sum(int(node.get("metrics", {}).get("unique-document-count", 0)) for node in nodes["storage"].values())
    whole = OK if str(state["state"]) == "up" else WRONG
    reason = f" ({state['reason']})" if state.get("reason") else ""
    rows = [
        CheckRow(AREA, "cluster", whole, f"{state['state']}{reason}; {up} of {total} nodes up, {copies:,} copies of documents")
    ]
    for kind, found in shown.items():
        for key, (name, why) in sorted(found.items(), key=lambda item: int(item[0])):
            if name != "up":
                what = f"{'node' if kind == 'storage' else kind} {key}"
                rows.append(CheckRow(AREA, what, STATES.get(name, WRONG), name + (f": {why}" if why else "")))
    samples = [Sample("content_nodes", float(count), {"state": name}) for name, count in {"up": 0, "down": 0, **counts}.items()]
    return Section(tuple(rows), tuple(samples))


def _node(node: Mapping[str, Any]) -> tuple[str, str]:
    """Return state and reason of a node; a state that an operator set has its own reason."""
    state = node["state"]
    generated, user = state["generated"], state.get("user", {})
    why = str(generated.get("reason") or user.get("reason") or state.get("unit", {}).get("reason") or "")
    return str(generated["state"]), why
