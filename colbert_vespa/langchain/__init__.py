"""LangChain: a retriever, a reranker, a document index, and a tool for agents."""

from late_interaction.extras import required

with required("langchain", "LangChain's interface"):
    import langchain_core  # noqa: F401 - so that what is missing has a name

from colbert_vespa.langchain.index import ColbertDocumentIndex
from colbert_vespa.langchain.reranker import ColbertReranker
from colbert_vespa.langchain.retriever import ColbertRetriever
from colbert_vespa.langchain.tool import search_tool

__all__ = ["ColbertDocumentIndex", "ColbertReranker", "ColbertRetriever", "search_tool"]
