"""LangChain's own tests, on a local index and (marker live) on a Vespa node, and what they do not ask."""

from __future__ import annotations

import pytest
from animals import ANIMALS, QUERY
from langchain_core.documents import Document
from langchain_tests.integration_tests import RetrieversIntegrationTests
from langchain_tests.integration_tests.indexer import AsyncDocumentIndexTestSuite, DocumentIndexerTestSuite

from colbert_vespa.langchain import ColbertDocumentIndex, ColbertReranker, ColbertRetriever, search_tool
from late_interaction.errors import FilterError, MetadataError, UsageError
from query import Client

LIVE = pytest.param("vespa", marks=pytest.mark.live)


@pytest.fixture(scope="class", params=["local", LIVE])
def searched(request):
    """A client of an index with at least three documents."""
    if request.param == "local":
        return request.getfixturevalue("client")
    return request.getfixturevalue("world").vespa


class Closing(RetrieversIntegrationTests):
    """Connections belong to the event loop of a test, and end with it."""

    @pytest.fixture
    async def retriever(self):
        made = self.retriever_constructor(**self.retriever_constructor_params)
        yield made
        await made.aclose()


class TestRetriever(Closing):
    @pytest.fixture(autouse=True)
    def _on(self, searched):
        self.searched = searched

    @property
    def retriever_constructor(self):
        return ColbertRetriever

    @property
    def retriever_constructor_params(self):
        return {"client": self.searched}

    @property
    def retriever_query_example(self):
        return QUERY


@pytest.fixture(params=["local", LIVE])
def index(request, tmp_path):
    """An empty one for each test."""
    if request.param == "local":
        made = ColbertDocumentIndex.from_address(tmp_path / "index", request.getfixturevalue("minilm_bundle"))
    else:
        world = request.getfixturevalue("world")
        made = ColbertDocumentIndex.from_address(f"{world.url}#kept", world.bundle)
        made.store.delete_where(None)
    yield made
    made.close()


class TestIndex(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self, index):
        return index


class TestAsyncIndex(AsyncDocumentIndexTestSuite):
    @pytest.fixture
    async def index(self, index):
        yield index
        await index.aclose()


class TestIndexAsRetriever(Closing):
    @pytest.fixture(autouse=True)
    def _on(self, index):
        index.upsert(documents())
        self.index = index

    @property
    def retriever_constructor(self):
        return ColbertDocumentIndex

    @property
    def retriever_constructor_params(self):
        return {"store": self.index.store}

    @property
    def retriever_query_example(self):
        return QUERY


def documents():
    return [Document(id=d.id, page_content=d.text, metadata={**d.metadata, "kind": "animal"}) for d in ANIMALS]


def test_ids_scores_passages_and_metadata_are_kept(client):
    found = ColbertRetriever(client=client, k=2).invoke(QUERY)
    hits = client.search(QUERY, 2).hits
    assert [d.id for d in found] == [hit.id for hit in hits]
    assert found[0].id == "cat"
    assert found[0].page_content == ANIMALS[0].text
    assert found[0].metadata == {
        **ANIMALS[0].metadata, "title": "Cats", "passage_id": "cat#0", "score": hits[0].score, "index": "index",
    }  # fmt: skip
    fish = next(d for d in ColbertRetriever(client=client).invoke(QUERY) if d.id == "fish")
    assert fish.metadata["loc"] == {"lines": [1, 2]}
    assert "title" not in fish.metadata


def test_a_call_may_say_otherwise(client):
    retriever = ColbertRetriever(client=client, k=3, where={"legs": 4})
    assert {d.id for d in retriever.invoke(QUERY)} == {"cat", "dog"}
    assert [d.id for d in retriever.invoke(QUERY, where={"home": "nest"})] == ["bird"]
    assert len(retriever.invoke(QUERY, where={}, k=4, candidates="exhaustive", index="index")) == 4
    for wrong, error in (({"k": 0}, UsageError), ({"where": {"x": 1}}, FilterError), ({"index": "x"}, UsageError)):
        with pytest.raises(error):
            retriever.invoke(QUERY, **wrong)
    with pytest.raises(TypeError):
        retriever.invoke(QUERY, filter={})


async def test_async_answers_as_sync(client):
    retriever = ColbertRetriever(client=client, k=3)
    assert await retriever.ainvoke(QUERY, where={"legs": 4}) == retriever.invoke(QUERY, where={"legs": 4})
    assert await retriever.abatch([QUERY, "fish"]) == retriever.batch([QUERY, "fish"])
    await retriever.aclose()


def test_a_cross_encoder_puts_the_hits_in_order(crossed):
    client, address, reader = crossed
    wanted = [hit.id for hit in client.search(QUERY, 3, rerank_with=reader, rerank_with_top=4).hits]
    retriever = ColbertRetriever(client=client, k=3, rerank_with=reader, rerank_with_top=4)
    assert [d.id for d in retriever.invoke(QUERY)] == wanted
    index = ColbertDocumentIndex.from_address(address, k=3, rerank_with=reader, rerank_with_top=4)
    assert [d.id for d in index.invoke(QUERY)] == wanted
    index.close()


def test_from_address(animals, minilm_bundle):
    retriever = ColbertRetriever.from_address(animals, minilm_bundle, k=1, where={"legs": 2})
    assert [d.id for d in retriever.invoke(QUERY)] == ["bird"]
    retriever.client.close()


def test_traces_say_what_was_asked(client, minilm_bundle):
    seen = ColbertRetriever(client=client)._get_ls_params()
    assert seen["ls_vector_store_provider"] == "colbert-vespa"
    assert seen["ls_embedding_model"] == minilm_bundle.manifest.source


def test_the_reranker_leaves_the_documents_as_they_are(client):
    given = [Document(id="same", page_content=d.text, metadata={"n": n}) for n, d in enumerate(ANIMALS)]
    before = [d.model_copy(deep=True) for d in given]
    found = ColbertReranker(client=client, k=2).compress_documents(given, QUERY)
    assert given == before
    assert found[0].metadata["n"] == 0
    ranked = client.rerank(QUERY, [d.page_content for d in given], 2)
    assert [d.metadata["relevance_score"] for d in found] == [hit.score for hit in ranked]
    assert all(d.id == "same" and d not in given for d in found)
    assert ColbertReranker(client=client).compress_documents([], QUERY) == []
    with pytest.raises(UsageError, match="blank"):
        ColbertReranker(client=client).compress_documents(given, " ")


async def test_the_reranker_answers_alike_when_awaited(client):
    reranker = ColbertReranker(client=client, k=3)
    given = [Document(page_content=d.text, metadata={"title": d.title}) for d in ANIMALS]
    assert await reranker.acompress_documents(given, QUERY) == reranker.compress_documents(given, QUERY)


def test_an_index_finds_what_was_put(index):
    assert index.invoke(QUERY) == []
    assert index.upsert(documents())["failed"] == []
    found = index.invoke(QUERY, k=1)
    assert (found[0].id, found[0].metadata["kind"], found[0].metadata["passage_id"]) == ("cat", "animal", "cat#0")
    index.upsert([Document(id="cat", page_content="something else", metadata={"kind": "other"})])
    assert [d.id for d in index.invoke(QUERY, where={"kind": "other"})] == ["cat"]
    index.delete(["cat"])
    assert "cat" not in {d.id for d in index.invoke(QUERY)}


async def test_an_index_is_searched_while_the_loop_goes_on(index):
    assert await index.ainvoke(QUERY) == []
    await index.aupsert(documents())
    assert (await index.ainvoke(QUERY, k=1))[0].id == "cat"
    await index.aclose()


def test_what_an_index_refuses(index, caplog):
    index.upsert(documents())
    blank = Document(id="blank", page_content=" ")
    assert index.upsert([blank])["failed"] == ["blank"]
    assert "'blank': the document is blank" in caplog.text
    with pytest.raises(MetadataError, match="'kind'"):
        index.upsert([Document(page_content="x", metadata={"kind": 5})])
    with pytest.raises(UsageError, match="namespace"):
        index.delete(["cat"], namespace="x")


async def test_events_are_streamed(client):
    retriever = ColbertRetriever(client=client, k=2)
    events = [event async for event in retriever.astream_events(QUERY, version="v2")]
    assert [event["event"] for event in events] == ["on_retriever_start", "on_retriever_end"]
    assert [d.id for d in events[-1]["data"]["output"]][0] == "cat"
    assert events[0]["metadata"]["ls_retriever_name"] == "colbert"
    await retriever.aclose()


def test_the_tool_gives_passages_with_their_ids(client):
    tool = search_tool(ColbertRetriever(client=client, k=1), description="Animals.")
    assert (tool.name, tool.description) == ("search_documents", "Animals.")
    message = tool.invoke({"type": "tool_call", "id": "1", "name": tool.name, "args": {"query": QUERY}})
    assert message.content == f"[cat#0] {ANIMALS[0].text}"
    assert [d.id for d in message.artifact] == ["cat"]


@pytest.mark.live
async def test_documents_of_vespa_are_found_alike_when_awaited(world):
    retriever = ColbertRetriever(client=world.vespa, k=5)
    query, where = "parse command line options", {"kind": "function"}
    sync, awaited = retriever.invoke(query, where=where), await retriever.ainvoke(query, where=where)
    assert [d.id for d in sync] == [d.id for d in awaited]
    assert {d.metadata["kind"] for d in sync} == {"function"}
    with Client(world.url, world.bundle) as client:
        assert [d.id for d in ColbertRetriever(client=client, k=5).invoke(query, where=where)] == [d.id for d in sync]
    await retriever.aclose()


@pytest.mark.parametrize("own", [{"score": 7, "index": "mine", "passage_id": "p-1"}, {"score": 7}, {"passage_id": "odd#0"}, {}])
def test_a_documents_own_metadata_are_kept_when_a_hit_is_put_back(index, own):
    given = Document(id="odd", page_content="a thread that waits", metadata={"kind": "animal", **own})
    index.upsert([given])
    (hit,) = index.invoke("thread", k=1)
    assert given.metadata.items() <= hit.metadata.items()
    ours = "colbert_" if own else ""
    assert hit.metadata[f"{ours}passage_id"] == "odd#0" and hit.metadata[f"{ours}score"] > 0
    index.upsert([hit])
    assert index.get(["odd"]) == [given]


def test_an_index_is_asked_as_it_is_set_by_now(index):
    index.upsert(documents())
    assert len(index.invoke(QUERY)) == len(ANIMALS)
    index.k, index.where = 1, {"legs": 2}
    assert [d.id for d in index.invoke(QUERY)] == ["bird"]
    assert len(index.invoke(QUERY, where={}, k=3)) == 3
    with pytest.raises(UsageError, match="list"):
        index.get("cat")
    with pytest.raises(UsageError, match="list"):
        index.delete("cat")
