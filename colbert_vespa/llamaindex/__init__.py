"""LlamaIndex: a retriever, a reranker, a vector store, a splitter for ingestion, and a tool for agents."""

from late_interaction.extras import required

with required("llamaindex", "LlamaIndex's interface"):
    import llama_index.core  # noqa: F401 - so that what is missing has a name

from colbert_vespa.llamaindex.reranker import ColbertReranker
from colbert_vespa.llamaindex.retriever import ColbertRetriever
from colbert_vespa.llamaindex.splitter import ColbertSplitter
from colbert_vespa.llamaindex.tool import search_tool
from colbert_vespa.llamaindex.vector_store import ColbertVectorStore

__all__ = ["ColbertReranker", "ColbertRetriever", "ColbertSplitter", "ColbertVectorStore", "search_tool"]
