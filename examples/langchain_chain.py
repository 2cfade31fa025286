"""A chain that answers from an index, streamed: python examples/langchain_chain.py INDEX "a question"

The chat model is a fake that says its lines; any other of LangChain's takes its place.
"""

import sys
from collections.abc import Iterator

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from colbert_vespa import Client
from colbert_vespa.langchain import ColbertRetriever

PROMPT = ChatPromptTemplate.from_template("Answer from these passages, and name them:\n\n{passages}\n\nQuestion: {question}")


def numbered(documents: list[Document]) -> str:
    return "\n\n".join(f"[{d.metadata['passage_id']}] {d.page_content}" for d in documents)


def chain_over(client: Client, model: BaseChatModel) -> Runnable[str, str]:
    passages = ColbertRetriever(client=client, k=3) | numbered
    return {"passages": passages, "question": RunnablePassthrough()} | PROMPT | model | StrOutputParser()


def answer(client: Client, question: str, model: BaseChatModel) -> Iterator[str]:
    """Piece by piece, as the model says it."""
    yield from chain_over(client, model).stream(question)


if __name__ == "__main__":
    index, asked = sys.argv[1:]
    fake = GenericFakeChatModel(messages=iter([AIMessage("The passages say so, and a real model would tell how.")]))
    with Client(index) as opened:
        for piece in answer(opened, asked, fake):
            print(piece, end="", flush=True)
    print()
