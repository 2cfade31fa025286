"""Settings of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from feeder import Splitting
from late_interaction.addresses import VespaUrl, locate
from late_interaction.errors import UsageError

__all__ = ["ServedAddress", "ServerSettings", "served_address"]


@dataclass(frozen=True)
class ServedAddress:
    """The address of an index to serve.

    Attributes:
        name: Name in the API; '' for the name of the folder or the schema.
    """

    address: str
    name: str = ""


@dataclass(frozen=True)
class ServerSettings:
    """Limits and options of a server.

    Attributes:
        timeout: Seconds for a request that names none.
        max_timeout: Seconds that a request may name, at most.
        max_body: Bytes of a request body, at most.
        max_text: Characters of a query, document or id, at most.
        max_batch: Queries, texts or ids of one request, at most.
        max_k: Hits, and candidates to rerank, at most.
        running: Requests that are computed or wait for Vespa at the same time.
        waiting: Requests queued behind these; further ones are refused.
        drain: Seconds that running requests have when the server stops.
        cors: Origins whose pages may read answers.
        trusted_proxies: Addresses whose X-Forwarded headers count.
        mcp: Also serve agents at /mcp.
        candidates: Candidates of the agents' searches.
        url_field: Metadata field with a document's address, for agents.
        splitting: How documents that are put are split.
        rerank_with: Folder of a cross-encoder, which a search asks for by the number of hits to rerank.
    """

    timeout: float = 10.0
    max_timeout: float = 60.0
    max_body: int = 16 * 1024 * 1024
    max_text: int = 100_000
    max_batch: int = 256
    max_k: int = 1_000
    running: int = 64
    waiting: int = 256
    drain: float = 20.0
    cors: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    mcp: bool = False
    candidates: str = "auto"
    url_field: str = "url"
    splitting: Splitting = field(default_factory=Splitting)
    rerank_with: Path | None = None


def served_address(text: str) -> ServedAddress:
    """Return the address that `ADDRESS` or `NAME=ADDRESS` gives.

    Raises:
        UsageError: If the text is not valid.
    """
    name, equals, rest = text.partition("=")
    named = bool(equals) and not any(sign in name for sign in "/\\:#")
    if named and (not name or not rest):
        raise UsageError(f"{text!r}: write NAME=ADDRESS, or ADDRESS alone")
    if named and (not name.isprintable() or name.strip() != name or name in (".", "..")):
        raise UsageError(f"{text!r}: {name!r} cannot be the name of an index")
    place: Path | VespaUrl = locate(rest if named else text)
    return ServedAddress(str(place), name if named else "")
