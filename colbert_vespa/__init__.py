"""The front door of colbert-vespa. Names here are promised; submodules of the other packages are not."""

from typing import TYPE_CHECKING

from feeder import FeedSummary, feed
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError
from query import AsyncClient, Client, ClientSettings, Hit, SearchResult, explain
from vespa_app import AppSettings, build_package, default_settings
from vespa_app.deploy import deploy

if TYPE_CHECKING:
    from colbert_vespa.training.rag_trainer import RAGTrainer

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
    "RAGTrainer",
    "SearchResult",
    "build_package",
    "default_settings",
    "deploy",
    "explain",
    "feed",
]


def __getattr__(name: str) -> object:
    """Names that bring a whole room with them are imported when they are first asked for."""
    if name == "RAGTrainer":
        from colbert_vespa.training.rag_trainer import RAGTrainer

        return RAGTrainer
    raise AttributeError(f"module 'colbert_vespa' has no attribute {name!r}")
