"""A search tool for LangChain's agents."""

from __future__ import annotations

from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import StructuredTool, create_retriever_tool

__all__ = ["search_tool"]

DESCRIPTION = "Searches the documents by meaning and words; gives the best passages, each with its id."
_PASSAGE = PromptTemplate.from_template("[{passage_id}] {page_content}")


def search_tool(retriever: BaseRetriever, name: str = "search_documents", description: str = DESCRIPTION) -> StructuredTool:
    """Create a tool that searches with a retriever.

    The language model reads the passages with their ids; the Documents are the artifact of the tool's message.

    Args:
        retriever: A ColbertRetriever or ColbertDocumentIndex.
        name: Name of the tool.
        description: Description of the tool, for the language model.
    """
    return create_retriever_tool(retriever, name, description, document_prompt=_PASSAGE, response_format="content_and_artifact")
