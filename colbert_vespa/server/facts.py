"""Facts about an index and the values of its fields, restricted to what the caller may see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from colbert_vespa.server.access import Access
from colbert_vespa.server.catalog import ServedIndex
from colbert_vespa.server.engine import Engine, Opened
from colbert_vespa.server.limits import within
from late_interaction.errors import UsageError
from late_interaction.filters import Filter, parse_where
from late_interaction.metadata import FieldType, MetadataSchema, Value
from query.backend import SearchIndex
from query.plans import Plan, VespaQuery
from query.types import Covered
from query.vespa import VespaIndex
from query.vespa_answer import coverage_of
from query.vespa_request import stored_request
from query.yql import filter_to_yql

if TYPE_CHECKING:
    from late_interaction.plaid import PlaidIndex
    from query.local import LocalSearch

__all__ = ["index_facts", "index_values"]


async def index_facts(engine: Engine, access: Access, name: str, timeout: float, *, brief: bool = False) -> dict[str, Any]:
    """Return the facts of an index, as in IndexAnswer.

    Args:
        engine: The engine.
        access: The caller.
        name: Name of the index.
        timeout: Seconds for the request.
        brief: Leave out what has to be counted.

    Raises:
        Refusal: If the index does not exist for the caller, or the server is busy.
        LocalIndexError: If the index is damaged.
        VespaError: If Vespa does not answer.
    """
    async with engine.opened(access, name, timeout) as opened:
        served, index = opened.served[0], opened.indexes[0]
        facts = _known(served, index)
        if brief:
            return facts
        where = parse_where(access.where, index.schema)
        if isinstance(index, VespaIndex):
            settings = index.application.settings
            if access.where is None:
                facts |= {"codec": settings.codec, "layout": settings.layout, "mode": settings.mode}
            counted = await engine.run(_vespa_counts(index, where, opened.until), opened.until)
            facts |= {"passages": counted.passages, "coverage": counted.coverage}
            return facts | {"degraded": engine.catalog.reasons(access, counted)}
        work = engine.thread(_local_facts, _local(index, opened, engine), where)
        return facts | await within(opened.until - engine.clock(), work)


def _known(served: ServedIndex, index: SearchIndex) -> dict[str, Any]:
    manifest = index.bundle.manifest
    return {
        "name": served.name,
        "backend": "vespa" if isinstance(index, VespaIndex) else "local",
        "candidates": list(index.strategies),
        "fields": index.schema.to_json(),
        "model": manifest.source,
        "dim": manifest.dim,
    }


def _local(index: SearchIndex, opened: Opened, engine: Engine) -> PlaidIndex:
    searched: LocalSearch = index  # type: ignore[assignment]  # there are two backends
    return searched.index.pinned(timeout=max(0.001, opened.until - engine.clock()))


def _local_facts(index: PlaidIndex, where: Filter | None) -> dict[str, Any]:
    """Return the facts of a local index. A caller with a filter gets only counts of the documents that it selects."""
    from colbert_vespa.index_info import index_info

    if where is not None:
        ids = [id_ for reader in index.readers().values() for id_ in reader.documents_with(where)]
        return {"documents": len(set(ids)), "passages": len(ids)}
    facts = index_info(index)
    readers = index.readers().values()
    facts["bytes"] = sum(reader.snapshot.stored_bytes() for reader in readers)
    facts["bytes"] += sum(dense["bytes"] for dense in facts.pop("dense", {}).values())
    trained = sum(reader.snapshot.version.trained_on for reader in readers)
    facts["growth"] = round(index.token_vectors / trained, 3) if trained else None
    versions = index.versions()
    facts["versions"] = len(versions)
    if versions:
        facts["last_feed"] = datetime.fromtimestamp(versions[-1].created, timezone.utc).isoformat()
    if index.sharding is not None:
        facts["degraded"] = [f"shard-{shard} cannot be read" for shard in index.missing]
        facts["shard_sizes"] = [{**size, "error": "cannot be read" if size["error"] else ""} for size in facts["shard_sizes"]]
    return facts


@dataclass(frozen=True)
class _PassageCount(Covered):
    passages: int | None
    coverage: float
    degraded: tuple[str, ...]


def _vespa_counts(index: VespaIndex, where: Filter | None, until: float) -> Plan[_PassageCount]:
    selection = "true" if where is None else filter_to_yql(where)
    body = stored_request(index.application.settings, selection, 0).body([index.name])
    (answer,) = yield (VespaQuery(index.url, body, until),)
    root = answer.body["root"]
    coverage = coverage_of(root, None)
    return _PassageCount(root.get("fields", {}).get("totalCount"), coverage.share, coverage.degraded)


async def index_values(
    engine: Engine, access: Access, name: str, field: str, limit: int, timeout: float
) -> list[dict[str, Any]]:
    """Return the values of a metadata field with their counts, the most frequent first.

    Raises:
        UsageError: If the field does not exist, or has no values to choose from.
        ColbertVespaError: As for index_facts.
    """
    async with engine.opened(access, name, timeout) as opened:
        index = opened.indexes[0]
        type_ = index.schema.fields.get(field)
        if type_ is None:
            raise UsageError(
                f"field {field[:100]!r} is unknown; the fields of this index: {', '.join(index.schema.fields) or 'none'}"
            )
        if type_ is FieldType.POSITION:
            raise UsageError(f"field {field!r} contains positions, which have no values to choose from")
        where = parse_where(access.where, index.schema)
        if isinstance(index, VespaIndex):
            counts = await engine.run(_vespa_values(index, field, where, limit, opened.until), opened.until)
        else:
            work = engine.thread(_local_values, _local(index, opened, engine), field, where)
            counts = await within(opened.until - engine.clock(), work)
        best = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:limit]
        return [{"value": _shown(index.schema, field, value), "count": count} for value, count in best]


def _shown(schema: MetadataSchema, field: str, value: Value) -> Value:
    many = schema.fields[field].many
    shown = schema.shown({field: [value] if many else value})[field]  # type: ignore[dict-item]  # an element
    return shown[0] if many else shown  # type: ignore[index]


def _local_values(index: PlaidIndex, field: str, where: Filter | None) -> Mapping[Any, int]:
    from late_interaction.plaid.store.columns import evaluate

    found: Counter[Any] = Counter()
    for reader in index.readers().values():
        for part in reader.snapshot.living:
            segment = part.segment
            mask = part.mask if where is None else part.mask & evaluate(where, segment.columns, segment.passages)
            column = segment.columns[field].select(np.flatnonzero(mask))
            values = column.values if column.offsets is not None else column.values[column.present]
            numbers, counts = np.unique(values, return_counts=True)
            texts = column.type.element is FieldType.STRING
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                found[column.words[number] if texts else number] += count
    return found


_READ: dict[str, Callable[[str], Any]] = {"long": int, "double": float, "bool": lambda text: text == "true"}


def _vespa_values(index: VespaIndex, field: str, where: Filter | None, limit: int, until: float) -> Plan[Mapping[Any, int]]:
    selection = "true" if where is None else filter_to_yql(where)
    body = stored_request(index.application.settings, selection, 0).body([index.name])
    body["yql"] += f" | all(group({field}) max({limit}) order(-count()) each(output(count())))"
    (answer,) = yield (VespaQuery(index.url, body, until),)
    found: dict[Any, int] = {}
    for group in _groups(answer.body["root"]):
        kind, _, text = str(group["id"]).removeprefix("group:").partition(":")
        found[_READ.get(kind, str)(str(group.get("value", text)))] = int(group["fields"]["count()"])
    return found


def _groups(root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the groups of a response: its root has a list for each `group`, and the list has the groups."""
    lists = [one for top in root.get("children", ()) for one in top.get("children", ())]
    return [group for one in lists for group in one.get("children", ())]
