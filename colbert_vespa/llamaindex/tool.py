"""A search tool for LlamaIndex's agents."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore
from llama_index.core.tools import FunctionTool

__all__ = ["search_tool"]

DESCRIPTION = "Searches the documents by meaning and words; gives the best passages, each with its id."


def search_tool(retriever: BaseRetriever, name: str = "search_documents", description: str = DESCRIPTION) -> FunctionTool:
    """Make a tool with which a model searches and reads passages with their ids.

    A RetrieverTool is not used: it searches for "input is ...", and these words match many documents.
    """

    def search(query: str) -> str:
        return _shown(retriever.retrieve(query))

    async def asearch(query: str) -> str:
        return _shown(await retriever.aretrieve(query))

    return FunctionTool.from_defaults(search, name=name, description=description, async_fn=asearch)


def _shown(found: Sequence[NodeWithScore]) -> str:
    return "\n\n".join(f"[{item.node.node_id}] {item.node.get_content(MetadataMode.NONE)}" for item in found)
