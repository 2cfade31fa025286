"""LangChain: a retriever, a reranker, a document index, and a tool for agents."""

from late_interaction.errors import MissingDependency

try:
    import langchain_core  # noqa: F401 - so that what is missing has a name
except ImportError:
    raise MissingDependency("LangChain is not installed: pip install 'colbert-vespa[langchain]'") from None

from colbert_vespa.langchain.index import ColbertDocumentIndex
from colbert_vespa.langchain.reranker import ColbertReranker
from colbert_vespa.langchain.retriever import ColbertRetriever
from colbert_vespa.langchain.tool import search_tool

__all__ = ["ColbertDocumentIndex", "ColbertReranker", "ColbertRetriever", "search_tool"]
