"""Routes of stored documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from colbert_vespa.server.access import Access
from colbert_vespa.server.answers import NDJSON, answer, line, responses
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.models import (
    DeletedAnswer,
    DocumentAnswer,
    DocumentBody,
    DocumentsAnswer,
    TaskStarted,
    WrittenAnswer,
    dense_of,
)
from colbert_vespa.server.requests import Asked, Patience, Reads, StrictRoute, Timeout, Writes, check_sizes, strict_json
from colbert_vespa.server.writing import Fate, Writing
from colbert_vespa.store import whole_document, whole_metadata
from late_interaction.documents import Document, Passage
from late_interaction.errors import ColbertVespaError
from late_interaction.text import checked_id
from query.options import check_ids

__all__ = ["router"]

router = APIRouter(prefix="/v1/indexes/{name}/documents", tags=["documents"], route_class=StrictRoute)
_Ids = Annotated[list[str], Query(min_length=1, description="Ids of documents, one per parameter.")]
TOGETHER = 1_000  # lines that are one commit of a local index


class _DocumentLine(msgspec.Struct, forbid_unknown_fields=True):
    """A document in the form of a JSON lines source."""

    id: str | int
    title: str = ""
    text: str = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    vectors: Any = None
    dense: dict[str, Any] = msgspec.field(default_factory=dict)


@router.get("", responses=responses(DocumentsAnswer), operation_id="get_documents")
async def get_documents(
    name: str,
    id: _Ids,  # noqa: A002
    engine: Asked,
    access: Reads,
    timeout: Timeout,
) -> Response:
    """Return several documents in the order of the ids; unknown ids are omitted."""
    check_sizes(engine, texts=tuple(id), many=len(id))
    found = await engine.get(access, check_ids(id), name, timeout(None))
    body = {"documents": list(map(_document_json, found.values())), "coverage": found.coverage}
    return answer({**body, "degraded": engine.catalog.reasons(access, found)})


@router.post("", operation_id="put_documents", responses=responses(TaskStarted, 409, 415, status=202, description="A task."))
async def put_documents(
    name: str, request: Request, engine: Asked, access: Writes,
    wait: Annotated[bool, Query(description="Whether to respond when everything is durable, or at once with a task.")] = True,
) -> Response:  # fmt: skip
    """Put many documents, one JSON object per line: id, title, text, metadata, vectors, dense.

    The response has one line with the outcome of each document once it is durable; with wait=false, the id of a task.
    """
    _check_type(request, NDJSON)
    lines = [line for line in (await request.body()).split(b"\n") if line.strip()]
    engine.catalog.only(access, name)
    writing: Writing = request.app.state.writing
    batches = _put_lines(writing, access, name, lines)
    if not wait:

        async def work(note: Callable[[Fate], None]) -> str:
            try:
                async for fates in batches:
                    for fate in fates:
                        note(fate)
            except ColbertVespaError as error:
                return str(engine.catalog.told(error))
            return ""

        task = request.app.state.tasks.start(access, len(lines), work)
        return answer({"task": task}, 202)
    first: list[Fate] = await anext(batches, [])  # errors of the whole are an answer of their own

    async def told() -> AsyncIterator[bytes]:
        yield b"".join(line(fate.to_json()) for fate in first)
        try:
            async for fates in batches:
                yield b"".join(line(fate.to_json()) for fate in fates)
        except ColbertVespaError as error:
            refusal = engine.catalog.told(error)
            yield line({"id": None, "status": refusal.status, "detail": f"the rest was not written: {refusal}"})

    return StreamingResponse(told(), media_type=NDJSON)


async def _put_lines(writing: Writing, access: Access, name: str, lines: Sequence[bytes]) -> AsyncIterator[list[Fate]]:
    """Put the documents of lines, and yield their outcomes in order, a batch at a time; errors are those of Writing.put."""
    for start in range(0, len(lines), TOGETHER):
        read = await writing.engine.thread(_read_all, lines[start : start + TOGETHER], start + 1)
        stored = iter(await writing.put(access, name, [one for one in read if isinstance(one, Document)]))
        yield [next(stored) if isinstance(one, Document) else one for one in read]


def _read_all(lines: Sequence[bytes], first: int) -> list[Document | Fate]:
    return [_read(text, place) for place, text in enumerate(lines, first)]


def _read(text: bytes, place: int) -> Document | Fate:
    """Read the document of a line; if it is not valid, return the outcome."""
    id_ = ""
    try:
        body = msgspec.convert(strict_json(text), _DocumentLine)
        id_ = body.id if isinstance(body.id, str) else str(body.id)
        return Document(id_, body.title, body.text, body.metadata, body.dense, body.vectors)
    except (ValueError, msgspec.ValidationError) as error:
        return Fate(id_, 422, f"line {place}: {error}")
    except ColbertVespaError as error:
        return Fate(id_[:100], 422, f"line {place}: {error}")


def _check_type(request: Request, wanted: str) -> None:
    """Require a content type that pages of other origins cannot send without a preflight request; Refusal otherwise."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise Refusal(415, f"the body must be {wanted}, got {given[:60] or 'no Content-Type'}")


@router.delete("", responses=responses(DeletedAnswer, 409), operation_id="delete_documents")
async def delete_documents(
    name: str,
    id: _Ids,  # noqa: A002
    request: Request,
    engine: Asked,
    access: Writes,
    patience: Patience,
) -> Response:
    """Delete several documents; `deleted` lists those that existed."""
    check_sizes(engine, texts=tuple(id), many=len(id))
    fates = await request.app.state.writing.delete(access, name, check_ids(id), patience)
    return answer({"deleted": [fate.id for fate in fates if fate.status < 400]})


@router.put("/{id:id}", responses=responses(WrittenAnswer, 409), operation_id="put_document")
async def put_document(
    name: str,
    id: str,  # noqa: A002
    body: DocumentBody,
    request: Request,
    engine: Asked,
    access: Writes,
    patience: Patience,
) -> Response:
    """Put one document, replacing one with the same id. The response is sent when it is durable and searchable."""
    document = Document(checked_id(id), body.title, body.text, body.metadata, dense_of(body.dense), body.matrices())
    return _only((await request.app.state.writing.put(access, name, [document], patience))[0])


@router.delete("/{id:id}", responses=responses(WrittenAnswer, 409), operation_id="delete_document")
async def delete_document(
    name: str,
    id: str,  # noqa: A002
    request: Request,
    access: Writes,
    patience: Patience,
) -> Response:
    """Delete one document."""
    return _only((await request.app.state.writing.delete(access, name, [checked_id(id)], patience))[0])


def _only(fate: Fate) -> Response:
    """Return the response for one document; Refusal if it was not written."""
    if fate.status >= 400:
        raise Refusal(fate.status, fate.detail)
    return answer({"id": fate.id})


@router.get("/{id:id}", responses=responses(DocumentAnswer), operation_id="get_document")
async def get_document(name: str, id: str, engine: Asked, access: Reads, timeout: Timeout) -> Response:  # noqa: A002
    """Return one document with its passages. The id is percent-encoded."""
    wanted = checked_id(id)
    found = await engine.get(access, [wanted], name, timeout(None))
    if wanted not in found:
        found.check_full()
        raise Refusal(404, f"there is no document {wanted[:100]!r}")
    return answer(_document_json(found[wanted]))


def _document_json(stored: Sequence[Passage]) -> dict[str, object]:
    """Return a document in the form of DocumentAnswer."""
    document = whole_document(stored)
    passages = [{"id": passage.id, "text": passage.text} for passage in stored]
    return {**document.to_json(), "metadata": whole_metadata(document.metadata), "passages": passages}
