"""Pairs of settings: what is deployed, what replaces it, and what that does. Shared by our tests and those against Vespa."""

from __future__ import annotations

import dataclasses

from late_interaction.metadata import FieldType, MetadataSchema
from vespa_app.settings import AppSettings, CloudSettings, ClusterSettings, OneVectorSettings

__all__ = ["CASES"]

_FIELDS = {"kind": FieldType.STRING, "year": FieldType.LONG, "tags": FieldType.STRINGS}
_BASE = AppSettings(
    dim=16, query_rows=8, metadata=MetadataSchema(_FIELDS), embedder=False,
    candidates=("centroid", "pooled", "bm25", "exhaustive"),
)  # fmt: skip
_EXACT = dataclasses.replace(_BASE, candidates=("bm25", "exhaustive"), embedder=True)
_STREAMING = dataclasses.replace(_EXACT, mode="streaming", group_field="kind")
_HOSTS = ClusterSettings(content=("node1", "node2", "node3"))
_CLOUD = CloudSettings(regions=("aws-us-east-1c",), content_nodes=(8,), content_memory_gb=(64,), read_tokens=("reader",))


def with_fields(**fields):
    return {"metadata": MetadataSchema({**_FIELDS, **fields})}


def _base(**change):
    return dataclasses.replace(_BASE, **change)


def _cluster(**change):
    return _base(cluster=dataclasses.replace(_HOSTS, **change))


def _cloud(**change):
    return _base(cloud=dataclasses.replace(_CLOUD, **change))


_TWO = _base(indexes={"notes": {"codec": "binary"}})

# name -> before, after, kinds that Vespa itself asks for, overrides that it asks for
CASES = {
    "the same": (_BASE, _BASE, (), ()),
    "codec": (_BASE, _base(codec="binary"), ("refeed",), ("field-type-change",)),
    "index added": (_BASE, _TWO, (), ()),
    "index removed": (_TWO, _BASE, (), ("schema-removal",)),
    "index renamed": (_BASE, _base(schema="other"), (), ("schema-removal",)),
    "candidates removed": (_BASE, _base(candidates=("bm25",)), (), ()),
    "candidates added": (_base(candidates=("bm25",)), _BASE, (), ()),
    "metadata added": (_BASE, _base(**with_fields(more=FieldType.DOUBLE)), (), ()),
    "metadata: a position": (_BASE, _base(**with_fields(place=FieldType.POSITION)), ("reindex",), ()),
    "metadata: a time": (_BASE, _base(**with_fields(at=FieldType.TIMESTAMP)), (), ()),
    "paged": (_BASE, _base(paged=True), ("restart",), ()),
    "no longer paged": (_base(paged=True), _BASE, ("restart",), ("paged-setting-removal",)),
    "metadata removed": (_base(**with_fields(more=FieldType.DOUBLE)), _BASE, (), ()),
    "metadata type": (_BASE, _base(**with_fields(year=FieldType.DOUBLE)), ("refeed",), ("field-type-change",)),
    "metadata list": (_BASE, _base(**with_fields(kind=FieldType.STRINGS)), ("refeed",), ("field-type-change",)),
    "cells of pooled": (_BASE, _base(one_vector=OneVectorSettings(cells="bfloat16")), ("refeed",), ("field-type-change",)),
    "cells and metric of pooled": (
        _BASE,
        _base(one_vector=OneVectorSettings(cells="int8")),
        ("refeed", "restart"),
        ("field-type-change", "hnsw-settings-change"),
    ),
    "HNSW links": (_BASE, _base(hnsw_links=32), ("restart",), ("hnsw-settings-change",)),
    "HNSW exploration": (_BASE, _base(hnsw_explore=400), ("restart",), ()),
    "threads": (_BASE, _base(search_threads=4), ("restart",), ()),
    "heap": (_BASE, _base(jvm_heap_mb=1024), ("restart",), ()),
    "rerank": (_BASE, _base(rerank=300), (), ()),
    "embedder added": (_BASE, _base(embedder=True), (), ()),
    "embedder removed": (_base(embedder=True), _BASE, (), ()),
    "namespace": (_BASE, _base(namespace="other"), (), ()),
    "hybrid without centroid": (_base(candidates=("hybrid", "centroid")), _base(candidates=("hybrid", "bm25")), (), ()),
    "token added": (_BASE, _base(candidates=(*_BASE.candidates, "token")), ("restart",), ()),
    "token removed": (_base(candidates=(*_BASE.candidates, "token")), _BASE, ("restart",), ()),
    "encoding": (_EXACT, dataclasses.replace(_EXACT, encoding="embedder"), ("reindex",), ("indexing-change",)),
    "layout": (_BASE, _base(layout="chunks"), ("refeed", "reindex"), ("field-type-change", "indexing-change")),
    "streaming": (_EXACT, _STREAMING, ("reindex", "restart"), ("indexing-mode-change",)),
    "back from streaming": (_STREAMING, _EXACT, ("reindex", "restart"), ("indexing-mode-change",)),
    "redundancy": (_cluster(), _cluster(redundancy=3), (), ()),
    "fewer copies": (_cluster(), _cluster(redundancy=1, searchable_copies=1), (), ()),
    "limits": (_cluster(), _cluster(disk_limit=0.9, memory_limit=0.85), (), ()),
    "host added": (_cluster(), _cluster(content=("node1", "node2", "node3", "node4")), (), ()),
    "host removed": (_cluster(), _cluster(content=("node1", "node2")), (), ()),
    "groups": (_cluster(content=("node1", "node2")), _cluster(content=("node1", "node2"), groups=2), (), ()),
    "container added": (_cluster(), _cluster(container=("node1", "node2")), ("restart",), ()),
    "cloud: half the nodes": (_cloud(), _cloud(content_nodes=(4,)), None, ()),
    "cloud: fewer nodes": (_cloud(), _cloud(content_nodes=(3,)), None, ("resources-reduction",)),
    "cloud: less memory": (_cloud(), _cloud(content_memory_gb=(24,)), None, ("resources-reduction",)),
    "cloud: lower range": (_cloud(content_nodes=(8, 16)), _cloud(content_nodes=(3, 16)), None, ("resources-reduction",)),
    "cloud: a token gone": (_cloud(), _cloud(read_tokens=()), None, ("data-plane-token-removal",)),
    "cloud: redundancy": (_cloud(), _cloud(redundancy=3), None, ()),
    "cloud: fewer larger nodes": (_cloud(), _cloud(content_nodes=(4,), content_memory_gb=(128,)), None, ()),
}
