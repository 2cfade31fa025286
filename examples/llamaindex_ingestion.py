"""Files ingested into a vector store and found again, hybrid: python examples/llamaindex_ingestion.py FILE... BUNDLE INDEX"""

import sys
from pathlib import Path

from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import NodeWithScore

from colbert_vespa import Client
from colbert_vespa.llamaindex import ColbertRetriever, ColbertSplitter, ColbertVectorStore


def ingest(documents: list[Document], bundle: str, index: str) -> int:
    """How many passages there are. A document that comes again replaces its passages."""
    store = ColbertVectorStore(index, bundle)
    for document in documents:
        store.delete(document.id_)
    pipeline = IngestionPipeline(transformations=[ColbertSplitter(bundle)], vector_store=store)
    made = pipeline.run(documents=documents)
    store.close()
    return len(made)


def hybrid(client: Client, question: str, k: int = 5) -> list[NodeWithScore]:
    """By MaxSim and by words, fused by rank; num_queries=1: no model makes further queries."""
    ways = [ColbertRetriever(client, k=20, candidates=name) for name in ("centroid", "bm25")]
    fusion = QueryFusionRetriever(ways, llm=MockLLM(), num_queries=1, mode="reciprocal_rerank", similarity_top_k=k)
    return fusion.retrieve(question)


if __name__ == "__main__":
    *files, model, target = sys.argv[1:]
    print(ingest([Document(id_=file, text=Path(file).read_text("utf-8")) for file in files], model, target), "passages")
    with Client(target) as opened:
        for found in hybrid(opened, "what is this about?"):
            print(f"{found.score:.4f} {found.node.node_id}: {found.node.get_content()[:80]!r}")
