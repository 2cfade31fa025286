"""The plan: every figure, notes, and its table [cloud]."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace

from late_interaction.codebook_training import MIN_PER_CENTROID
from vespa_app.planning.filling import filling_figures
from vespa_app.planning.memory import PassageBytes, cluster_of, passage_bytes
from vespa_app.planning.queries import query_cost, shared_cost
from vespa_app.planning.request import Figure, PlanRequest, check_request
from vespa_app.planning.throughput import container_figures, content_vcpu, groups_figure
from vespa_app.settings import CloudSettings
from vespa_app.settings.sections import MOST_NODES, section_json, toml_table

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """What an application needs.

    Attributes:
        request: what the plan is for.
        figures: all figures.
        notes: what a user should know.
    """

    request: PlanRequest
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = field(default=())

    def value(self, name: str) -> float:
        """Return the value of a figure."""
        return next(figure.value for figure in self.figures if figure.name == name)

    def cloud(self) -> CloudSettings | None:
        """Return node resources for Vespa Cloud, with room to scale to twice as many nodes.

        None if `app` would refuse so many.
        """
        nodes, groups = int(self.value("content nodes")), self.request.groups
        if nodes > MOST_NODES:
            return None
        most = min(2 * nodes, MOST_NODES // groups * groups)
        disk = math.ceil(self.value("disk per node") / 10) * 10
        container = CloudSettings().container_memory_gb[0]
        return replace(
            CloudSettings(groups=groups, redundancy=self.request.redundancy),
            content_nodes=(nodes, most) if most > nodes else (nodes,),
            content_memory_gb=(self.request.node_memory_gb,),
            content_vcpu=(content_vcpu(self.request),),
            content_disk_gb=(float(max(50, disk)),),
            container_nodes=(int(self.value("container nodes")),),
            container_memory_gb=(max(container, math.ceil(self.value("memory per container"))),),
        )

    def cloud_toml(self) -> str:
        """Return the table [cloud] of app.toml for the plan; empty if there is none."""
        cloud = self.cloud()
        return "\n".join(toml_table("cloud", section_json(cloud))[1:]) + "\n" if cloud else ""

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON values."""
        cloud = self.cloud()
        return {
            "request": asdict(self.request),
            "figures": [asdict(figure) for figure in self.figures],
            "notes": list(self.notes),
            "cloud": section_json(cloud) if cloud else None,
        }


def make_plan(request: PlanRequest) -> Plan:
    """Make a plan.

    Args:
        request: what to plan for.

    Raises:
        SettingsError: if a number or name is not valid; the message names it.
    """
    check_request(request)
    indexes = [("", request), *((f"{name}: ", own) for name, own in request.indexes)]
    passages = [passage_bytes(own, prefix) for prefix, own in indexes]
    cluster = cluster_of(request, passages)
    strategies = [(own, name, min(cluster.full, own.documents), prefix) for prefix, own in indexes for name in own.candidates]
    queries = [figure for each in strategies for figure in (query_cost(*each), shared_cost(*each)) if figure]
    groups = [groups_figure(request, cluster.full)] if request.queries_per_second else []
    figures = (
        *(figure for passage in passages for figure in passage.figures),
        _per_passage(passages),
        *cluster.figures,
        *container_figures(request),
        *queries,
        *groups,
        *filling_figures(request, passages, cluster.nodes),
    )
    return Plan(request, figures, _notes(request, cluster.nodes, groups))


def _per_passage(passages: list[PassageBytes]) -> Figure:
    parts = [figure.value for passage in passages for figure in passage.in_memory]
    paged = any(passage.paged for passage in passages)
    what = "sum of the lines above except paged vectors, which are on disk" if paged else "sum of the lines above"
    return Figure("memory per passage", sum(parts), "B", " + ".join(f"{part:.4g}" for part in parts), what)


def _notes(request: PlanRequest, nodes: int, groups: list[Figure]) -> tuple[str, ...]:
    notes = []
    every = (request, *(own for _, own in request.indexes))
    if nodes > MOST_NODES:
        notes.append(
            f"{nodes:,} content nodes exceed the limit of one application ({MOST_NODES:,}); store less (--codec, --pooling, "
            "paged), give nodes more memory (--node-memory), or split the documents over several applications"
        )
    for figure in groups:
        if figure.value > request.groups:
            count = int(figure.value)
            notes.append(
                f"{request.queries_per_second:g} queries/s need {count} groups, but there is {request.groups}; set "
                f"groups = {count} and redundancy = {count} (one copy per group), or twice that"
            )
    if any(own.by_centroid and not own.centroids for own in every):
        count = request.centroid_count(request.documents)
        notes.append(
            f"centroid: times assume a codebook of {count:,} centroids, which `export --documents {request.documents:g}`"
            f" makes of a sample of at least {math.ceil(MIN_PER_CENTROID * count / request.stored):,} passages"
        )
    if request.redundancy == 1:
        notes.append("redundancy 1: the documents of a lost host must be fed again")
    if request.searchable_copies < request.redundancy:
        notes.append(
            "fewer searchable copies than redundancy: after losing a host its share must be indexed before it is found"
        )
    if nodes > 1 and any("token" in own.candidates for own in every):
        notes.append("token HNSW with several searchable copies builds a graph for each: groups with one copy each cost less")
    if any(own.paged for own in every):
        notes.append("paged vectors are read through the page cache; give nodes memory for those that queries rerank")
    if any(own.layout == "chunks" for own in every):
        notes.append("layout chunks: MaxSim over chunks was not measured and uses a slower path, so times are lower bounds")
    if request.indexes:
        notes.append("each index of [indexes] is assumed to have as many passages as the main one")
    notes.append("times are scaled from a measurement on 2 cores; measure yours with `colbert-vespa evaluate`")
    return tuple(notes)
