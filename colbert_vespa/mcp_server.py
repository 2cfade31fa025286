"""An MCP server with the tools `search` and `fetch` over one index, which research agents expect."""

# no `from __future__ import annotations`: the SDK reads those of the tools, which are functions inside a function

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

from colbert_vespa.store import whole_document, whole_metadata
from late_interaction.cross_encoder import CrossEncoder
from late_interaction.documents import Passage
from late_interaction.errors import ColbertVespaError
from late_interaction.extras import required
from late_interaction.metadata import MetadataSchema, Value
from query import AsyncClient, Client, SearchResult
from query.types import ById

with required("serve", "the MCP server"):
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

__all__ = ["AgentIndex", "FetchedDocument", "SearchResults", "build_server", "serve_mcp", "server_over"]

MAX_QUERY = 4_000  # characters
MAX_RESULTS = 50
MAX_PASSAGE = 2_000  # characters of a result's text
MAX_TEXT = 100_000  # characters of a document
MAX_ID = 2_048
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)

INSTRUCTIONS = "Search the documents of this index with `search`, then read one in full with `fetch` and its id."


class FoundDocument(BaseModel):
    id: str = Field(description="Id of the document, for fetch.")
    title: str
    text: str = Field(description="The passage that fits best.")
    url: str = Field(description="Where the document stands; empty where the index does not say.")
    score: float


class SearchResults(BaseModel):
    """The documents that a search found, best first."""

    results: list[FoundDocument]


class FetchedDocument(BaseModel):
    """A document with its whole text, cut off at the limit."""

    id: str
    title: str
    text: str
    url: str
    metadata: dict[str, Any]
    truncated: bool = Field(description=f"Whether the text was cut off after {MAX_TEXT:,} characters.")


class AgentIndex(Protocol):
    """The interface of the index that the tools use."""

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
        """Search for the k best hits."""
        ...

    async def get(self, ids: list[str], *, timeout: float | None) -> ById[tuple[Passage, ...]]:
        """Return the passages of documents, by document id."""
        ...

    async def close(self) -> None:
        """Close the index."""
        ...


def build_server(
    client: Client,
    *,
    candidates: str = "auto",
    url_field: str = "url",
    rerank_with: CrossEncoder | str | Path | None = None,
    timeout: float | None = None,
) -> MCPServer[None]:
    """Create a server for any of the SDK's transports; the caller who opened the client closes it.

    Args:
        client: Client of the index.
        candidates: A strategy of the index, or `auto`.
        url_field: Metadata field with a document's URL.
        rerank_with: A cross-encoder for every search.
        timeout: Seconds for a call; None for the client's.
    """
    index = AsyncClient.from_client(client)
    return server_over(
        index, client.schema, candidates=candidates, url_field=url_field, rerank_with=rerank_with, timeout=timeout
    )


def server_over(
    index: AgentIndex,
    schema: MetadataSchema,
    *,
    candidates: str = "auto",
    url_field: str = "url",
    rerank_with: CrossEncoder | str | Path | None = None,
    timeout: float | None = None,
) -> MCPServer[None]:
    """Create a server over an index, like build_server.

    Args:
        index: The index, closed with the server.
        schema: Metadata fields that filters may name.
        candidates: As for build_server.
        url_field: As for build_server.
        rerank_with: As for build_server.
        timeout: As for build_server.
    """
    fields = ", ".join(f"{name} ({type_.value})" for name, type_ in schema.fields.items())

    @asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await index.close()

    server = MCPServer[None](
        "colbert-vespa", instructions=INSTRUCTIONS, lifespan=lifespan, log_level="WARNING", subscriptions=False
    )

    async def search(
        query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY, description="A question, or words.")],
        k: Annotated[int, Field(ge=1, le=MAX_RESULTS, description="Documents at most.")] = 10,
        where: Annotated[
            dict[str, Any] | None, Field(description=f'Filter, as {{"field": {{"$gte": 1}}}}. Fields: {fields or "none"}.')
        ] = None,
    ) -> SearchResults:
        try:
            result = await index.search(
                query, k, where=where, candidates=candidates, group=True, rerank_with=rerank_with, timeout=timeout
            )
        except ColbertVespaError as error:
            raise ToolError(str(error)) from None
        return SearchResults(
            results=[
                FoundDocument(
                    id=hit.id, title=hit.title or hit.id, text=hit.text[:MAX_PASSAGE], score=hit.score,
                    url=_url(hit.metadata.get(url_field)),
                )
                for hit in result.hits
            ]
        )  # fmt: skip

    async def fetch(
        id: Annotated[str, Field(min_length=1, max_length=MAX_ID, description="Id of a document, as search gives it.")],  # noqa: A002 - agents know it so
    ) -> FetchedDocument:
        try:
            documents = await index.get([id], timeout=timeout)
            if id not in documents:
                documents.check_full()
        except ColbertVespaError as error:
            raise ToolError(str(error)) from None
        if id not in documents:
            raise ToolError(f"no document {id!r}: give an id that search has found")
        document = whole_document(documents[id])
        return FetchedDocument(
            id=id, title=document.title or id, text=document.text[:MAX_TEXT], truncated=len(document.text) > MAX_TEXT,
            url=_url(document.metadata.get(url_field)), metadata=whole_metadata(document.metadata),
        )  # fmt: skip

    server.add_tool(
        search,
        title="Search",
        annotations=READS,
        description="Finds documents by meaning and words, each with its best passage.",
    )
    server.add_tool(fetch, title="Fetch", annotations=READS, description="A whole document by its id, with its metadata.")
    return server


def serve_mcp(server: MCPServer[None]) -> None:
    """Serve over standard input and output until the other side closes, or Ctrl-C."""
    server.run("stdio")


def _url(value: Value) -> str:
    return value if isinstance(value, str) else ""
