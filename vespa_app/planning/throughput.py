"""Containers, and the groups that a number of queries per second needs."""

from __future__ import annotations

import math
from dataclasses import replace

from vespa_app.planning.queries import query_cost
from vespa_app.planning.request import GB, Figure, PlanRequest

__all__ = ["VCPU_BUSY", "container_figures", "content_vcpu", "groups_figure"]

BUSY = "assumed: processors are 60 % busy at peak, so that queries do not wait for each other"
ENCODED = "docs/performance, one int8 query 1.8 ms at most; 615 MB RSS of a container with the int8 embedder"
VCPU_BUSY = 0.6
ENCODING_MS = 1.8
CONTAINER_GB = 0.615
CONTAINER_VCPU = 2.0


def content_vcpu(request: PlanRequest) -> float:
    """Return the vCPU of a content node on Vespa Cloud: two queries at a time."""
    return float(max(2, 2 * request.threads))


def groups_figure(request: PlanRequest, here: float) -> Figure:
    """Return the groups of nodes that serve so many queries by the first strategy; a query keeps one group busy."""
    name = request.candidates[0]
    work = query_cost(replace(request, threads=1), name, here).value
    vcpu = content_vcpu(request)
    groups = max(1, math.ceil(request.queries_per_second * work / 1000 / (vcpu * VCPU_BUSY)))
    formula = (
        f"{request.queries_per_second:g} queries/s x {work:.4g} ms of one processor ({name}) / 1000"
        f" / ({vcpu:g} vCPU a node x {VCPU_BUSY})"
    )
    return Figure("groups for these queries", groups, "", formula, BUSY)


def container_figures(request: PlanRequest) -> list[Figure]:
    """Return the figures of containers."""
    encoding = ENCODING_MS if request.embedder else 0.0
    busy = request.queries_per_second * encoding / 1000 / (CONTAINER_VCPU * VCPU_BUSY)
    least = 2 if request.redundancy > 1 else 1
    nodes = request.container_nodes or max(least, math.ceil(busy))
    formula = (
        f"{nodes} set"
        if request.container_nodes
        else f"at least {least}; {request.queries_per_second:g} queries/s x {encoding:g} ms to encode a query / 1000"
        f" / ({CONTAINER_VCPU:g} vCPU x {VCPU_BUSY})"
    )
    memory = request.jvm_heap_mb * 1e6 / GB + CONTAINER_GB
    memory_formula = f"{request.jvm_heap_mb} MB heap + {CONTAINER_GB} GB of the process around it, model included"
    return [
        Figure("container nodes", nodes, "", formula, f"{ENCODED}; {BUSY}"),
        Figure("memory per container", memory, "GB", memory_formula, ENCODED),
    ]
