"""Filters, settings and results as JSON, between the router of an index of shards and its workers."""

from __future__ import annotations

from typing import Any

from late_interaction.documents import Passage
from late_interaction.filters import And, Exists, Filter, In, Near, Not, Or, Range
from late_interaction.plaid.types import LocalHit, LocalResult, SearchSettings

__all__ = ["filter_from_json", "filter_to_json", "result_from_json", "result_to_json", "settings_from_json", "settings_to_json"]


def filter_to_json(where: Filter | None) -> list[Any] | None:
    """Return the filter as JSON values."""
    match where:
        case None:
            return None
        case In(field, values):
            return ["in", field, list(values)]
        case Range(field, op, value):
            return ["range", field, op, value]
        case Near(field, lat, lng, km):
            return ["near", field, lat, lng, km]
        case Exists(field):
            return ["exists", field]
        case Not(part):
            return ["not", filter_to_json(part)]
        case And(parts):
            return ["and", [filter_to_json(part) for part in parts]]
        case Or(parts):
            return ["or", [filter_to_json(part) for part in parts]]


def filter_from_json(data: list[Any] | None) -> Filter | None:
    """Parse the output of `filter_to_json`."""
    return None if data is None else _filter(data)


def _filter(data: list[Any]) -> Filter:
    kind, *rest = data
    if kind == "in":
        return In(rest[0], tuple(rest[1]))
    if kind in ("and", "or"):
        parts = tuple(_filter(part) for part in rest[0])
        return And(parts) if kind == "and" else Or(parts)
    if kind == "not":
        return Not(_filter(rest[0]))
    makers: dict[str, type[Range] | type[Near] | type[Exists]] = {"range": Range, "near": Near, "exists": Exists}
    return makers[kind](*rest)


def settings_to_json(settings: SearchSettings | None) -> list[int | None] | None:
    """Return the settings as JSON values."""
    return None if settings is None else [settings.probes, settings.rerank]


def settings_from_json(data: list[int | None] | None) -> SearchSettings | None:
    """Parse the output of `settings_to_json`."""
    return None if data is None else SearchSettings(*data)


def result_to_json(result: LocalResult) -> dict[str, Any]:
    """Return the result as JSON values."""
    hits = []
    for hit in result.hits:
        p = hit.passage
        hits.append([p.id, p.document_id, p.title, p.text, dict(p.metadata), hit.score, hit.approximate])
    return {
        "hits": hits,
        "candidates": result.candidates,
        "reranked": result.reranked,
        "widened": result.widened,
        "outgrown": result.outgrown,
        "seconds": dict(result.seconds),
    }


def result_from_json(data: dict[str, Any]) -> LocalResult:
    """Parse the output of `result_to_json`."""
    hits = [LocalHit(Passage(*fields), score, approximate) for *fields, score, approximate in data["hits"]]
    return LocalResult(hits, data["candidates"], data["reranked"], data["widened"], data["seconds"], data["outgrown"])
