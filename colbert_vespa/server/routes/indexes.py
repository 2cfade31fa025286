"""Routes of the served indexes and their facts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from colbert_vespa.server.answers import answer, responses
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.facts import index_facts, index_values
from colbert_vespa.server.models import IndexAnswer, IndexesAnswer, SelectAnswer, SelectBody, ValuesAnswer
from colbert_vespa.server.requests import Asked, Reads, StrictRoute, Timeout
from late_interaction.errors import ColbertVespaError

__all__ = ["router"]

router = APIRouter(prefix="/v1/indexes", tags=["indexes"], route_class=StrictRoute)
MOST_VALUES = 1_000


@router.get("", responses=responses(IndexesAnswer), operation_id="indexes")
async def indexes(engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """List the served indexes that the caller may see."""
    found = []
    for served in engine.catalog.visible(access):
        try:
            found.append(await index_facts(engine, access, served.name, timeout(None), brief=True))
        except Refusal as refusal:
            if refusal.status != 404:
                raise
        except ColbertVespaError as error:
            told = {"name": served.name, "backend": served.backend, "error": str(engine.catalog.told(error))}
            found.append({**told, "candidates": [], "fields": {}, "model": "", "dim": 0})
    return answer({"indexes": found})


@router.get("/{name}", responses=responses(IndexAnswer), operation_id="index")
async def index(name: str, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Return documents, passages, version, codec, bytes, growth, drift and metadata fields of an index."""
    return answer(await index_facts(engine, access, name, timeout(None)))


@router.get("/{name}/values", responses=responses(ValuesAnswer), operation_id="values")
async def values(
    name: str,
    field: Annotated[str, Query(description="A metadata field.")],
    engine: Asked,
    access: Reads,
    timeout: Timeout,
    limit: Annotated[int, Query(ge=1, le=MOST_VALUES)] = 20,
) -> Response:
    """List the values of a metadata field, those of most passages first."""
    return answer({"values": await index_values(engine, access, name, field, limit, timeout(None))})


@router.post("/{name}/select", responses=responses(SelectAnswer), operation_id="select")
async def select(name: str, body: SelectBody, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Return the ids of the documents that a filter selects."""
    found = await engine.select(access, body.where, body.limit, name, timeout(body.timeout))
    return answer({"ids": list(found), "coverage": found.coverage, "degraded": engine.catalog.reasons(access, found)})
