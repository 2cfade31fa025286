"""RAGatouille's own documented examples (README, example notebooks 1, 4, 5 and 6, LangChain's page on it) with our import line
and made texts: what they call is as it is there."""

from __future__ import annotations

import pytest

HARBOUR = (
    "The harbour of Wrenmouth lies behind two stone piers. Fishing boats leave it before sunrise and come back at noon. "
    "The lighthouse on the northern pier was built by Ada Corwin in 1871. She had founded the Corwin glass works, which made "
    "lenses for half the coast. Her son Tobias kept the light for thirty years. In winter storms the keepers slept beside the "
    "lamp. A museum in the old customs house shows the first lens. Visitors climb ninety steps to the gallery. "
    "On clear days they see the islands in the west."
)
BAKERY = (
    "The bakery in Mill Lane opens at five. Its rye bread rises for two days before it is baked. Children come for the plum "
    "cakes after school. The oven is heated with beech wood, as it was a century ago."
)
CLOCKS = (
    "Clockmakers of the valley were known for their wooden gears. A gear of pear wood runs without oil. "
    "The town clock has been wound by hand every Monday since it was hung."
)
OBSERVATORY = (
    "The observatory on Mount Sorrel closed its dome in 1990. Its great mirror was sold to a school, where pupils now look at "
    "the rings of Saturn with it."
)
PAGES = {"Wrenmouth": HARBOUR, "Bakery": BAKERY, "Clocks": CLOCKS, "Observatory": OBSERVATORY}


def get_wikipedia_page(title: str) -> str:
    """Where the examples fetch a page."""
    return PAGES[title]


def test_readme_indexing(hub_model):
    from colbert_vespa import RAGPretrainedModel

    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    my_documents = [get_wikipedia_page("Wrenmouth"), get_wikipedia_page("Bakery")]
    index_path = RAG.index(index_name="my_index", collection=my_documents)
    assert index_path == ".ragatouille/colbert/indexes/my_index"

    document_ids = ["harbour", "bakery"]
    document_metadatas = [
        {"entity": "place", "source": "made"},
        {"entity": "shop", "source": "made"},
    ]
    index_path = RAG.index(
        index_name="my_index_with_ids_and_metadata",
        collection=my_documents,
        document_ids=document_ids,
        document_metadatas=document_metadatas,
    )

    query = "How long does the rye bread rise?"
    RAG = RAGPretrainedModel.from_index(index_path)
    results = RAG.search(query)
    assert list(results[0]) == ["content", "score", "rank", "document_id", "passage_id", "document_metadata"]
    assert (results[0]["rank"], results[0]["document_id"]) == (1, "bakery")
    assert results[0]["document_metadata"] == {"entity": "shop", "source": "made"}
    assert isinstance(results[0]["score"], float)
    assert isinstance(results[0]["passage_id"], int)

    several = RAG.search(["Who built the lighthouse?", "When does the bakery open?", "What is sold after school?"])
    assert [found[0]["document_id"] for found in several] == ["harbour", "bakery", "bakery"]
    assert all([hit["rank"] for hit in found] == list(range(1, len(found) + 1)) for found in several)


def test_notebook_1_basic_indexing_and_search(hub_model):
    from colbert_vespa import RAGPretrainedModel

    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    full_document = get_wikipedia_page("Wrenmouth")
    RAG.index(
        collection=[full_document],
        document_ids=["wrenmouth"],
        document_metadatas=[{"entity": "place", "source": "made"}],
        index_name="Wrenmouth",
        max_document_length=40,
        split_documents=True,
    )
    k = 3
    results = RAG.search(query="What works did Corwin found?", k=k)
    assert len(results) == k
    assert "glass works" in results[0]["content"]
    all_results = RAG.search(query=["What works did Corwin found?", "Corwin son name"], k=k)
    assert all_results[0] == results
    assert "Tobias" in all_results[1][0]["content"]

    path_to_index = ".ragatouille/colbert/indexes/Wrenmouth/"
    RAG = RAGPretrainedModel.from_index(path_to_index)
    assert RAG.search(query="What works did Corwin found?", k=k) == results
    new_documents = get_wikipedia_page("Clocks")
    RAG.add_to_index([new_documents])
    assert "pear wood" in RAG.search("gears without oil", k=1)[0]["content"]


def test_notebook_4_reranking(hub_model):
    from colbert_vespa import RAGPretrainedModel
    from colbert_vespa.rag import CorpusProcessor

    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    corpus_processor = CorpusProcessor()
    documents = [get_wikipedia_page("Wrenmouth"), get_wikipedia_page("Bakery"), get_wikipedia_page("Clocks")]
    documents = corpus_processor.process_corpus(documents, chunk_size=30)
    raw_results = [document["content"] for document in documents]  # of another retriever
    query = "Which wood heats the oven?"
    found = RAG.rerank(query=query, documents=raw_results, k=5)
    assert len(found) == 5
    assert list(found[0]) == ["content", "score", "rank", "result_index"]
    assert "beech wood" in found[0]["content"]
    assert raw_results[found[0]["result_index"]] == found[0]["content"]


def test_notebook_5_documents_of_a_loader(hub_model):
    from colbert_vespa import RAGPretrainedModel

    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    list_papers = list(PAGES.values())
    RAG.index(collection=list_papers, index_name="papers", max_document_length=180, split_documents=True)
    k = 3
    results = RAG.search(query="rings of a planet", k=k, index_name="papers")
    assert "Saturn" in results[0]["content"]


def test_notebook_6_index_free_use(hub_model):
    from colbert_vespa import RAGPretrainedModel
    from colbert_vespa.rag import CorpusProcessor

    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    corpus_processor = CorpusProcessor()
    documents = [get_wikipedia_page(title) for title in PAGES]
    documents = corpus_processor.process_corpus(documents, chunk_size=200)
    RAG.encode([x["content"] for x in documents], document_metadatas=[{"about": "valley"} for _ in range(len(documents))])
    found = RAG.search_encoded_docs(query="What can visitors climb?", k=3)
    assert len(found) == 3
    assert found[0] | {"score": 0.0} == {
        "content": HARBOUR, "score": 0.0, "rank": 1, "result_index": 0, "document_metadata": {"about": "valley"},
    }  # fmt: skip

    my_new_document = [
        "I'm a new document about the importance of curry! I love curry, it's the best food! Do you like curry too?",
        "I'm a second new document!",
    ]
    RAG.encode(my_new_document, document_metadatas=[{"about": "new_document"} for _ in range(len(my_new_document))])
    best = RAG.search_encoded_docs(query="What's the best food?", k=1)
    assert (best[0]["result_index"], best[0]["document_metadata"]) == (4, {"about": "new_document"})

    RAG.clear_encoded_docs()
    RAG.encode(
        documents=[
            "This is a really good document about soup. Soup is a dish that is eaten with a spoon.",
            "This is a document that is absolutely and utterly relevant to anything",
        ]
    )
    best = RAG.search_encoded_docs(query="What do you know about dishes? Curry maybe?", k=1)
    assert best[0]["content"].startswith("This is a really good document about soup")


def test_langchain_retriever(hub_model):
    pytest.importorskip("colbert_vespa.langchain")
    from colbert_vespa import RAGPretrainedModel

    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    RAG.index(collection=list(PAGES.values()), index_name="pages", max_document_length=180, split_documents=True)
    retriever = RAG.as_langchain_retriever(k=3)
    found = retriever.invoke("What animation of the coast did Corwin make lenses for?")
    assert len(found) == 3
    assert "lenses" in found[0].page_content


def test_langchain_compressor(hub_model):
    pytest.importorskip("colbert_vespa.langchain")
    from langchain_core.documents import Document

    from colbert_vespa import RAGPretrainedModel

    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    compressor = RAG.as_langchain_document_compressor(k=2)
    found = compressor.compress_documents([Document(page_content=page) for page in PAGES.values()], "plum cakes for children")
    assert len(found) == 2
    assert found[0].page_content == BAKERY
