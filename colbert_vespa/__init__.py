"""The front door of colbert-vespa. Names here are promised; submodules of the other packages are not."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colbert_vespa.rag import RAGPretrainedModel
    from colbert_vespa.training.rag_trainer import RAGTrainer
    from feeder import FeedOptions, FeedSummary, feed
    from late_interaction.bundle import Bundle
    from late_interaction.documents import Document
    from late_interaction.errors import ColbertVespaError
    from query import AsyncClient, Client, ClientSettings, Hit, SearchResult, explain
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
    "RAGPretrainedModel",
    "RAGTrainer",
    "SearchResult",
    "build_package",
    "default_settings",
    "deploy",
    "explain",
    "feed",
]

_HOMES = {
    "colbert_vespa.rag": ("RAGPretrainedModel",),
    "colbert_vespa.training.rag_trainer": ("RAGTrainer",),
    "feeder": ("FeedOptions", "FeedSummary", "feed"),
    "late_interaction.bundle": ("Bundle",),
    "late_interaction.documents": ("Document",),
    "late_interaction.errors": ("ColbertVespaError",),
    "query": ("AsyncClient", "Client", "ClientSettings", "Hit", "SearchResult", "explain"),
    "vespa_app": ("AppSettings", "build_package", "default_settings"),
    "vespa_app.deploying": ("deploy",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Names are imported when they are asked for, so that the command line is there for Ctrl-C at once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
