"""Routes of queries: search, rerank, explain, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from colbert_vespa.server.answers import NDJSON, answer, line, responses
from colbert_vespa.server.models import (
    EncodeAnswer,
    EncodeBody,
    ExplainRequest,
    RerankAnswer,
    RerankRequest,
    SearchAnswer,
    SearchRequest,
    hit_json,
    result_json,
)
from colbert_vespa.server.requests import Asked, Reads, StrictRoute, Timeout, check_sizes
from late_interaction.array_types import Matrix
from late_interaction.errors import ColbertVespaError, UsageError
from late_interaction.ready_rows import packed_array
from query.options import SearchOptions
from query.types import SearchResult

__all__ = ["router"]

MANY_HITS = 100  # whose answer takes a millisecond to write
router = APIRouter(prefix="/v1", tags=["search"], route_class=StrictRoute)


_STREAMED = {NDJSON: {"schema": {"type": "string", "description": "One result per line: candidates, then reranked hits."}}}


@router.post("/search", responses=responses(SearchAnswer, also=_STREAMED), operation_id="search")
async def search(body: SearchRequest, request: Request, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Search with one query or several, each a text or ready rows.

    Options are those of `Client.search`. With `Accept: application/x-ndjson` and one query, the response has one result
    per line: the candidates of the first stage, then the reranked hits.
    """
    queries, options = body.all(), body.options()
    check_sizes(engine, texts=tuple(queries), many=len(queries))
    check_counts(engine, options)
    seconds = timeout(options.timeout)
    if NDJSON in request.headers.get("accept", ""):
        if len(queries) != 1:
            raise UsageError("stages work with one query only")
        options.for_first_stage()  # what cannot be said in stages is told before they begin
        return await _streamed(engine.stages(access, queries[0], options, seconds), engine)
    results = await engine.search(access, queries, options, seconds) if queries else []
    many = options.explain or sum(len(result.hits) for result in results) > MANY_HITS
    return await _built(engine, lambda: {"results": list(map(result_json, results))}, large=many)


async def _built(engine: Asked, body: Callable[[], object], *, large: bool) -> Response:
    """Return the response with a body; a `large` one is built in a thread, so that other requests do not wait."""
    return await engine.thread(lambda: answer(body())) if large else answer(body())


async def _streamed(stages: AsyncIterator[SearchResult], engine: Asked) -> Response:
    """Stream stages as lines. An error before the first line is the response; a later one is the last line."""
    first = await anext(stages)

    async def lines() -> AsyncIterator[bytes]:
        yield line(result_json(first))
        try:
            async for result in stages:
                yield line(result_json(result))
        except ColbertVespaError as error:
            refusal = engine.catalog.told(error)
            yield line({"stage": "error", "status": refusal.status, "detail": str(refusal)})

    return StreamingResponse(lines(), media_type=NDJSON)


def check_counts(engine: Asked, options: SearchOptions) -> None:
    ids = len(options.ids or ())
    check_sizes(engine, many=ids, counts=(options.k, options.rerank, options.probes, options.offset, options.rerank_with_top))


@router.post("/rerank", responses=responses(RerankAnswer), operation_id="rerank")
async def rerank(body: RerankRequest, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Rank texts, encoded by the server, or stored documents by their MaxSim with a query. The id of a text is its position."""
    query, given = body.one(), body.texts if body.texts is not None else body.ids
    if given is None or (body.texts is not None and body.ids is not None):
        raise UsageError("give either texts or ids")
    check_sizes(engine, texts=(query, *given), many=len(given))
    most = min(body.k or len(given), len(given)) if body.k is None or body.k > 0 else body.k
    if not given:
        return answer({"hits": []})
    options = body.options(k=most)
    seconds = timeout(options.timeout)
    if body.texts is not None:
        if options.where is not None:
            raise UsageError("where selects stored documents; give ids")
        hits = await engine.rerank_texts(access, query, body.texts, options, seconds)
    else:
        found = await engine.rerank_stored(access, query, body.options(k=most, ids=given), seconds)
        hits = found.hits
    return await _built(engine, lambda: {"hits": list(map(hit_json, hits))}, large=options.explain or len(hits) > MANY_HITS)


@router.post("/explain", responses=responses(SearchAnswer), operation_id="explain")
async def explain(body: ExplainRequest, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Explain how a query and the passages of stored documents match, word by word."""
    if (body.id is None) == (body.ids is None):
        raise UsageError("give either id or ids")
    ids = [body.id] if body.id is not None else list(body.ids or ())
    query, options = body.one(), body.options(ids=ids, explain=True)
    check_sizes(engine, texts=(query, *ids), many=len(ids))
    check_counts(engine, options)
    result = await engine.rerank_stored(access, query, options, timeout(options.timeout))
    return await _built(engine, lambda: {"results": [result_json(result)]}, large=True)


@router.post("/encode", responses=responses(EncodeAnswer), operation_id="encode")
async def encode(body: EncodeBody, engine: Asked, access: Reads, timeout: Timeout) -> Response:
    """Encode queries or documents as token vectors with the model of an index."""
    if (body.queries is None) == (body.documents is None):
        raise UsageError("give either queries or documents")
    queries, documents = body.queries or [], body.documents or []
    check_sizes(engine, texts=(*queries, *documents), many=len(queries) + len(documents))
    seconds = timeout(body.timeout)
    found = await engine.encode(access, queries, documents, body.index, seconds) if queries or documents else []
    shown = packed_array if body.format == "base64" else _numbers
    return await _built(engine, lambda: {"vectors": list(map(shown, found))}, large=True)


def _numbers(rows: Matrix) -> object:
    return rows.tolist()
