"""The ASGI application: routes, errors and middleware."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from colbert_vespa.server.door import Door, OpenDoor
from colbert_vespa.server.engine import Engine
from colbert_vespa.server.errors import detail_of, problem, problem_of, status_of
from colbert_vespa.server.guard import LOG, Guard
from colbert_vespa.server.models import Problem
from colbert_vespa.server.page import page_routes
from colbert_vespa.server.routes import documents, health, indexes, passages, search
from colbert_vespa.server.tasks import Tasks
from colbert_vespa.server.writing import Writing
from late_interaction.errors import ColbertVespaError

if TYPE_CHECKING:
    from colbert_vespa.server.agents import Agents

__all__ = ["create_app"]

PUBLIC = ("/health", "/ready")  # without a key
METHODS = ("GET", "POST", "PUT", "DELETE")
DESCRIPTION = "Late-interaction search over local indexes and Vespa applications."


def create_app(engine: Engine, door: Door | None = None) -> FastAPI:
    """Create the application over an open engine, which it closes when it ends.

    Args:
        engine: The engine.
        door: Decides who is admitted; default: everyone.
    """
    door = door or OpenDoor(engine.settings.cors)
    agents = _agents(engine, door) if engine.settings.mcp else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            running.push_async_callback(engine.close)
            if agents is not None:
                await running.enter_async_context(agents.running())
            warming = asyncio.create_task(asyncio.to_thread(_warm, app, engine))
            running.push_async_callback(asyncio.wait, [warming])
            running.push_async_callback(app.state.tasks.finish, engine.settings.drain)
            yield

    app = FastAPI(
        title="colbert-vespa", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=lifespan,
        redirect_slashes=False,
    )  # fmt: skip
    app.state.engine, app.state.door, app.state.ready, app.state.stopping = engine, door, False, False
    app.state.writing, app.state.tasks = Writing(engine, engine.settings.splitting), Tasks()
    for one in (search, indexes, passages, documents, health):
        app.include_router(one.router)
    app.router.routes.extend([*page_routes(), *([] if agents is None else [agents.route])])
    _handle_errors(app, engine)
    app.openapi = functools.partial(_described, app)  # type: ignore[method-assign]  # as FastAPI's documentation has it

    def done(scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "")
        engine.metrics.answered(scope["method"] if scope["method"] in METHODS else "other", route or "other", status, seconds)
        state = scope["state"]
        client = (scope.get("client") or [""])[0]
        more = {
            "request_id": state["request_id"],
            "client": client,
            "key": state.get("key", ""),
            "method": scope["method"],
            "route": route,
        }
        LOG.info("request", extra={**more, "status": status, "ms": round(1000 * seconds, 2)})

    if engine.settings.cors:
        app.add_middleware(CORSMiddleware, **_cors(engine.settings.cors))
    app.add_middleware(Guard, max_body=engine.settings.max_body, done=done)
    return app


def _cors(origins: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of CORS. Pages set the key's header themselves, so no browser sends a key on its own."""
    headers = ["Authorization", "Content-Type", "X-Request-Id", "X-Timeout"]
    exposed = ["X-Request-Id", "Retry-After"]
    return {"allow_origins": origins, "allow_methods": METHODS, "allow_headers": headers, "expose_headers": exposed}


def _agents(engine: Engine, door: Door) -> Agents:
    from colbert_vespa.server.agents import Agents  # the SDK takes a second

    return Agents(engine, door)


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description, with problems and keys."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        parts = found["components"]
        parts["schemas"] = {**parts["schemas"], "Problem": Problem.model_json_schema()}
        for unused in ("HTTPValidationError", "ValidationError"):
            parts["schemas"].pop(unused, None)
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in found["paths"].items():
            for operation in methods.values() if path not in PUBLIC else ():
                operation["security"] = [{}, {"key": []}]  # without keys none is needed
        app.openapi_schema = found
    return app.openapi_schema


def _warm(app: FastAPI, engine: Engine) -> None:
    try:
        engine.warm(lambda: app.state.stopping)
    except ColbertVespaError as error:
        LOG.error("not ready", extra={"error": engine.catalog.hidden(str(error))})
        return
    app.state.ready = not app.state.stopping


def _handle_errors(app: FastAPI, engine: Engine) -> None:
    def request_id(request: Request) -> str:
        return str(getattr(request.state, "request_id", ""))

    @app.exception_handler(ColbertVespaError)
    async def ours(request: Request, error: ColbertVespaError) -> Response:
        if status_of(error) >= 500:
            LOG.warning("refused", extra={"request_id": request_id(request), "error": str(error)})
        return problem_of(error, request_id(request), engine.catalog.hidden(detail_of(error)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), request_id(request), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        """Report place and reason of an invalid field, without its value."""
        faults = error.errors()
        if any(fault["type"] == "json_invalid" for fault in faults):
            why = faults[0].get("ctx", {}).get("error", "")
            return problem(400, f"the body is not JSON: {why}", request_id(request), kind="not-json")
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
        return problem(422, said, request_id(request), kind="usage")
