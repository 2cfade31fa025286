"""An agent that searches before it answers: python examples/langchain_agent.py INDEX "a question"

The model is scripted: first it calls the tool, then it answers with what came back. Any model that calls tools takes its place.
"""

import sys
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import Runnable

from colbert_vespa import Client
from colbert_vespa.langchain import ColbertRetriever, search_tool


class ScriptedModel(GenericFakeChatModel):
    """Says its messages one after the other, whatever tools it is given."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self


def script(question: str) -> ScriptedModel:
    call = {"name": "search_documents", "args": {"query": question}, "id": "call-1"}
    return ScriptedModel(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("That is what the index says.")]))


def ask(client: Client, question: str, model: BaseChatModel) -> tuple[str, list[str]]:
    """The answer, and the ids of the documents that the agent has read."""
    agent = create_agent(model, [search_tool(ColbertRetriever(client=client, k=3))])
    messages = agent.invoke({"messages": [("user", question)]})["messages"]
    read = [document.id for message in messages if isinstance(message, ToolMessage) for document in message.artifact]
    return str(messages[-1].content), read


if __name__ == "__main__":
    index, asked = sys.argv[1:]
    with Client(index) as opened:
        said, documents = ask(opened, asked, script(asked))
    print(said, documents)
