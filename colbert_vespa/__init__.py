"""The front door of colbert-vespa. Names here are promised; submodules of the other packages are not."""

from feeder import FeedSummary, feed
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError
from query import Hit, Retriever, SearchResult, explain, open_retriever

__all__ = [
    "Bundle",
    "ColbertVespaError",
    "Document",
    "FeedSummary",
    "Hit",
    "Retriever",
    "SearchResult",
    "explain",
    "feed",
    "open_retriever",
]
