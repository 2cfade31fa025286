"""The front door of colbert-vespa. Names here are promised; submodules of the other packages are not."""

from feeder import FeedSummary, feed
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError
from query import Hit, Retriever, SearchResult, explain, open_retriever
from vespa_app import AppSettings, build_package, default_settings
from vespa_app.deploy import deploy

__all__ = [
    "AppSettings",
    "Bundle",
    "ColbertVespaError",
    "Document",
    "FeedSummary",
    "Hit",
    "Retriever",
    "SearchResult",
    "build_package",
    "default_settings",
    "deploy",
    "explain",
    "feed",
    "open_retriever",
]
