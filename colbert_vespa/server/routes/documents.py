"""Stored documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from colbert_vespa.server.answers import answer, responses
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.models import DocumentAnswer, DocumentsAnswer
from colbert_vespa.server.requests import Asked, Reads, StrictRoute, Timeout, check_sizes
from colbert_vespa.store import whole_document, whole_metadata
from late_interaction.documents import Passage
from late_interaction.text import checked_id
from query.options import check_ids

__all__ = ["router"]

router = APIRouter(prefix="/v1/indexes/{name}/documents", tags=["documents"], route_class=StrictRoute)


@router.get("", responses=responses(DocumentsAnswer), operation_id="get_documents")
async def get_documents(
    name: str,
    id: Annotated[list[str], Query(min_length=1, description="Ids of documents, one a parameter.")],  # noqa: A002
    engine: Asked,
    access: Reads,
    timeout: Timeout,
) -> Response:
    """Several documents, in the order of the ids; those that are unknown are left out."""
    check_sizes(engine, texts=tuple(id), many=len(id))
    found = await engine.get(access, check_ids(id), name, timeout(None))
    body = {"documents": list(map(_document_json, found.values())), "coverage": found.coverage}
    return answer({**body, "degraded": list(map(engine.catalog.hidden, found.degraded))})


@router.get("/{id:id}", responses=responses(DocumentAnswer), operation_id="get_document")
async def get_document(name: str, id: str, engine: Asked, access: Reads, timeout: Timeout) -> Response:  # noqa: A002
    """One document with its passages. The id is percent-encoded."""
    wanted = checked_id(id)
    found = await engine.get(access, [wanted], name, timeout(None))
    if wanted not in found:
        found.check_full()
        raise Refusal(404, f"there is no document {wanted[:100]!r}")
    return answer(_document_json(found[wanted]))


def _document_json(stored: Sequence[Passage]) -> dict[str, object]:
    """As DocumentAnswer."""
    document = whole_document(stored)
    passages = [{"id": passage.id, "text": passage.text} for passage in stored]
    return {**document.to_json(), "metadata": whole_metadata(document.metadata), "passages": passages}
