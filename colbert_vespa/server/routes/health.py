"""Routes of health, readiness, metrics and tasks."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from colbert_vespa.server.answers import answer, responses
from colbert_vespa.server.models import TaskAnswer
from colbert_vespa.server.requests import Administers, Asked, Writes

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/v1/tasks/{id}", responses=responses(TaskAnswer), operation_id="task", tags=["documents"])
async def task(id: str, request: Request, access: Writes) -> Response:  # noqa: A002
    """Return the progress of documents that were put without waiting."""
    return answer(request.app.state.tasks.told(access, id))


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse, responses=responses(None, only=(401, 403)))
async def metrics(engine: Asked, access: Administers) -> Response:
    """Return requests, stages, queue and encoder batches for Prometheus. If the server has keys, the role admin is required."""
    return Response(engine.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/health", operation_id="health")
async def health() -> Response:
    """Return 200 if the process is running."""
    return answer({"status": "ok"})


@router.get("/ready", operation_id="ready", responses={503: {"description": "The server is starting or shutting down."}})
async def ready(request: Request) -> Response:
    """Return 200 if models and indexes are loaded and the server is not shutting down, else 503."""
    is_ready = bool(request.app.state.ready)
    return answer({"ready": is_ready}, 200 if is_ready else 503)
