"""Routes of stored passages by id, which clients in other processes use."""

from __future__ import annotations

import math

from fastapi import APIRouter, Response

from colbert_vespa.server.answers import answer, responses
from colbert_vespa.server.models import (
    PassagesAnswer,
    PassagesBody,
    ScoreBody,
    ScoresAnswer,
    VectorsAnswer,
    VectorsBody,
)
from colbert_vespa.server.requests import Asked, Reads, StrictRoute, Timeout, check_sizes
from colbert_vespa.server.stored import passage_scores, passage_vectors
from late_interaction.ready_rows import packed_array
from query.options import check_ids

__all__ = ["router"]

router = APIRouter(prefix="/v1/indexes/{name}", tags=["documents"], route_class=StrictRoute)


@router.post("/passages", responses=responses(PassagesAnswer), operation_id="passages")
async def passages(name: str, body: PassagesBody, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Get the stored passages of documents by the ids of the documents.

    Ids that are unknown, or not selected by `where`, are omitted.
    """
    check_sizes(engine, texts=tuple(body.ids), many=len(body.ids))
    found = await engine.get(access, check_ids(body.ids), name, timeout(body.timeout), body.where)
    shown = [
        {"id": p.id, "document_id": p.document_id, "title": p.title, "text": p.text, "metadata": dict(p.metadata)}
        for stored in found.values()
        for p in stored
    ]
    return answer({"passages": shown, "coverage": found.coverage, "degraded": engine.catalog.reasons(access, found)})


@router.post("/score", responses=responses(ScoresAnswer), operation_id="score")
async def score(name: str, body: ScoreBody, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Score stored passages for a query with MaxSim, by passage id (`DOCUMENT#0` is the first passage of a document).

    Unknown ids are omitted, and the score of a passage without vectors is null.
    """
    query = body.one()
    check_sizes(engine, texts=(query, *body.ids), many=len(body.ids))
    found = await passage_scores(engine, access, name, query, check_ids(body.ids), timeout(body.timeout))
    scores = {id_: value if math.isfinite(value) else None for id_, value in found.items()}
    return answer({"scores": scores, "coverage": found.coverage, "degraded": engine.catalog.reasons(access, found)})


@router.post("/vectors", responses=responses(VectorsAnswer), operation_id="vectors")
async def vectors(name: str, body: VectorsBody, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Return stored token vectors by passage id; unknown ids are omitted."""
    check_sizes(engine, texts=tuple(body.ids), many=len(body.ids))
    found = await passage_vectors(engine, access, name, check_ids(body.ids), timeout(body.timeout))
    rows = {id_: packed_array(D) for id_, D in found.items()}
    return answer({"vectors": rows, "coverage": found.coverage, "degraded": engine.catalog.reasons(access, found)})
