"""Answer queries: candidates, then late-interaction reranking, on Vespa or a local index."""

from query.async_client import AsyncClient
from query.client import Client
from query.explain import explain
from query.options import ClientSettings
from query.types import Explanation, Hit, Match, QueryVectors, SearchResult

__all__ = [
    "AsyncClient",
    "Client",
    "ClientSettings",
    "Explanation",
    "Hit",
    "Match",
    "QueryVectors",
    "SearchResult",
    "explain",
]
