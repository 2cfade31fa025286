"""MCP at /mcp, with the tools, keys and limits of the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import HTTPConnection
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from colbert_vespa.mcp_server import server_over
from colbert_vespa.server.access import READ, Access
from colbert_vespa.server.door import Door
from colbert_vespa.server.engine import Engine
from late_interaction.cross_encoder import CrossEncoder
from late_interaction.documents import Passage
from late_interaction.errors import ColbertVespaError
from late_interaction.metadata import FieldType, MetadataSchema
from query.last_stage import RERANKED_TOP
from query.options import SearchOptions
from query.types import ById, SearchResult

__all__ = ["Agents"]

_ACCESS: ContextVar[Access] = ContextVar("access")


class Agents:
    """The MCP server, without sessions, so that each request has its own caller."""

    def __init__(self, engine: Engine, door: Door) -> None:
        settings = engine.settings
        self._door = door
        self._server = server_over(
            _SeenIndexes(engine),
            _fields(engine),
            candidates=settings.candidates,
            url_field=settings.url_field,
            rerank_with=engine.cross_encoder,
        )
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)  # that is the door's
        self._server.streamable_http_app(stateless_http=True, json_response=True, transport_security=security)
        self.route = Route("/mcp", self, methods=["POST"], include_in_schema=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the session manager while the context is open."""
        async with self._server.session_manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit the caller and pass the request on to the MCP server.

        Raises:
            Refusal: If the caller is not admitted.
        """
        _ACCESS.set(self._door.admitted(HTTPConnection(scope), READ))
        await self._server.session_manager.handle_request(scope, receive, send)


class _SeenIndexes:
    """The indexes that the caller of a request may see. Errors do not contain the server's addresses."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def search(
        self,
        query: str,
        k: int,
        *,
        where: dict[str, Any] | None,
        candidates: str,
        group: bool,
        rerank_with: CrossEncoder | str | Path | None,
        timeout: float | None,
    ) -> SearchResult:
        """Search the indexes that the caller may see; errors have no details that it may not see."""
        top = None if rerank_with is None else RERANKED_TOP
        options = SearchOptions(k, where=where, candidates=candidates, group=group, rerank_with_top=top)
        try:
            return (await self._engine.search(_ACCESS.get(), [query], options, timeout))[0]
        except ColbertVespaError as error:
            raise self._engine.catalog.told(error) from None

    async def get(self, ids: list[str], *, timeout: float | None) -> ById[tuple[Passage, ...]]:
        """Return the passages of documents from the first index that has them; errors as in `search`."""
        found: ById[tuple[Passage, ...]] = ById()
        try:
            for served in self._engine.catalog.visible(_ACCESS.get()):
                found = await self._engine.get(_ACCESS.get(), ids, served.name, timeout)
                if found:
                    break
        except ColbertVespaError as error:
            raise self._engine.catalog.told(error) from None
        return found

    async def close(self) -> None:
        """Do nothing: the application closes the engine."""


def _fields(engine: Engine) -> MetadataSchema:
    """Return the metadata fields of all indexes."""
    found: dict[str, FieldType] = {}
    for served in engine.catalog.indexes.values():
        found |= engine.core.indexes[served.known].schema.fields
    return MetadataSchema(found)
