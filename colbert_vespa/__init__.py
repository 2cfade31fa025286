"""The front door of colbert-vespa. Names here are promised; submodules of the other packages are not."""

from feeder import FeedSummary, feed
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError
from query import AsyncClient, Client, ClientSettings, Hit, SearchResult, explain
from vespa_app import AppSettings, build_package, default_settings
from vespa_app.deploy import deploy

__all__ = [
    "AppSettings",
    "AsyncClient",
    "Bundle",
    "Client",
    "ClientSettings",
    "ColbertVespaError",
    "Document",
    "FeedSummary",
    "Hit",
    "SearchResult",
    "build_package",
    "default_settings",
    "deploy",
    "explain",
    "feed",
]
