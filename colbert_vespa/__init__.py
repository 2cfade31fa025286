"""The public names of colbert-vespa, which minor releases keep. Submodules of the other packages may change in any release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.lazy_names import lazy_names

if TYPE_CHECKING:
    from colbert_vespa.rag import RAGPretrainedModel
    from colbert_vespa.training.rag_trainer import RAGTrainer
    from feeder import FeedOptions, FeedSummary, feed
    from late_interaction.bundle import Bundle
    from late_interaction.documents import Document
    from late_interaction.errors import ColbertVespaError
    from query import AsyncClient, Client, ClientSettings, Hit, QueryVectors, SearchResult, explain
    from vespa_app import AppSettings, build_package, default_settings
    from vespa_app.deploying import deploy

__all__ = [
    "AppSettings",
    "AsyncClient",
    "Bundle",
    "Client",
    "ClientSettings",
    "ColbertVespaError",
    "Document",
    "FeedOptions",
    "FeedSummary",
    "Hit",
    "QueryVectors",
    "RAGPretrainedModel",
    "RAGTrainer",
    "SearchResult",
    "build_package",
    "default_settings",
    "deploy",
    "explain",
    "feed",
]

# so that the command line is there for Ctrl-C at once
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "colbert_vespa.rag": ("RAGPretrainedModel",),
        "colbert_vespa.training.rag_trainer": ("RAGTrainer",),
        "feeder": ("FeedOptions", "FeedSummary", "feed"),
        "late_interaction.bundle": ("Bundle",),
        "late_interaction.documents": ("Document",),
        "late_interaction.errors": ("ColbertVespaError",),
        "query": ("AsyncClient", "Client", "ClientSettings", "Hit", "QueryVectors", "SearchResult", "explain"),
        "vespa_app": ("AppSettings", "build_package", "default_settings"),
        "vespa_app.deploying": ("deploy",),
    },
)
