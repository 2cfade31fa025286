"""The front door of colbert-vespa. Names here are promised; submodules of the other packages are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feeder import FeedSummary, feed
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError
from query import AsyncClient, Client, ClientSettings, Hit, SearchResult, explain
from vespa_app import AppSettings, build_package, default_settings
from vespa_app.deploy import deploy

if TYPE_CHECKING:
    from colbert_vespa.rag import RAGPretrainedModel
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
    "RAGPretrainedModel",
    "RAGTrainer",
    "SearchResult",
    "build_package",
    "default_settings",
    "deploy",
    "explain",
    "feed",
]


def __getattr__(name: str) -> object:
    """What few need is imported when it is asked for."""
    if name == "RAGPretrainedModel":
        from colbert_vespa.rag import RAGPretrainedModel

        return RAGPretrainedModel
    if name == "RAGTrainer":
        from colbert_vespa.training.rag_trainer import RAGTrainer

        return RAGTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
