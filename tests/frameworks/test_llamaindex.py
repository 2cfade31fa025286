"""LlamaIndex's interfaces on a local index and (marker live) on a Vespa node."""

from __future__ import annotations

import asyncio

import pytest
from animals import ANIMALS, QUERY
from llama_index.core import Document as LlamaDocument
from llama_index.core import MockEmbedding, QueryBundle, StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import ImageNode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from colbert_vespa.llamaindex import ColbertReranker, ColbertRetriever, ColbertSplitter, ColbertVectorStore, search_tool
from colbert_vespa.llamaindex.filters import where_of
from late_interaction.errors import FilterError, UsageError
from late_interaction.filters import parse_filter

LIVE = pytest.param("vespa", marks=pytest.mark.live)


@pytest.fixture(params=["local", LIVE])
def store(request, tmp_path):
    """An empty one for each test."""
    if request.param == "local":
        made = ColbertVectorStore(tmp_path / "index", request.getfixturevalue("minilm_bundle"))
    else:
        world = request.getfixturevalue("world")
        made = ColbertVectorStore(f"{world.url}#kept", world.bundle)
        made.clear()
    yield made
    made.close()


def nodes():
    """Two nodes of one document, two of another."""
    made = [TextNode(id_=d.id, text=d.text, metadata=dict(d.metadata)) for d in ANIMALS]
    for number, node in enumerate(made):
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"part{number // 2}")
    return made


def ask(store, text=QUERY, k=4, **more):
    return store.query(VectorStoreQuery(query_str=text, similarity_top_k=k, **more))


def one(key, value, operator="=="):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def test_the_retriever_gives_passages_as_nodes(client):
    found = ColbertRetriever(client, k=2, where={"legs": {"$gte": 2}}).retrieve(QUERY)
    hits = client.search(QUERY, 2, where={"legs": {"$gte": 2}}).hits
    assert [(n.node.node_id, n.score) for n in found] == [(hit.passage_id, hit.score) for hit in hits]
    assert found[0].node.get_content() == ANIMALS[0].text
    assert found[0].node.metadata == {**ANIMALS[0].metadata, "title": "Cats"}
    assert found[0].node.ref_doc_id == "cat"


async def test_the_retriever_asks_without_holding_up_the_loop(client, monkeypatch):
    retriever = ColbertRetriever(client, k=3)
    sync = retriever.retrieve(QUERY)
    monkeypatch.setattr(client, "search", None)  # what a blocking path would call
    assert [(n.node.node_id, n.score) for n in await retriever.aretrieve(QUERY)] == [(n.node.node_id, n.score) for n in sync]
    await retriever.aclose()


def test_a_cross_encoder_puts_the_hits_in_order(crossed):
    client, address, reader = crossed
    wanted = [hit.passage_id for hit in client.search(QUERY, 3, rerank_with=reader, rerank_with_top=4).hits]
    retriever = ColbertRetriever(client, k=3, rerank_with=reader, rerank_with_top=4)
    assert [found.node.node_id for found in retriever.retrieve(QUERY)] == wanted
    store = ColbertVectorStore(address, rerank_with=reader, rerank_with_top=4)
    assert ask(store, k=3).ids == wanted
    store.close()


def test_a_retriever_from_an_address(animals):
    retriever = ColbertRetriever.from_address(animals, k=1)
    assert retriever.retrieve(QUERY)[0].node.ref_doc_id == "cat"
    retriever.client.close()


def test_the_reranker_leaves_the_nodes_as_they_are(client):
    given = [NodeWithScore(node=node, score=0.5) for node in nodes()]
    before = [item.model_copy(deep=True) for item in given]
    seen = []

    class Handler(BaseEventHandler):
        def handle(self, event, **kwargs):
            seen.append(event.class_name())

    handler = Handler()
    get_dispatcher().add_event_handler(handler)
    try:
        found = ColbertReranker(client=client, k=2).postprocess_nodes(given, query_str=QUERY)
    finally:
        get_dispatcher().event_handlers.remove(handler)
    assert given == before
    hits = client.rerank(QUERY, [d.text for d in ANIMALS], 2)
    assert [(item.node.node_id, item.score) for item in found] == [(ANIMALS[int(hit.id)].id, hit.score) for hit in hits]
    assert [name for name in seen if name.startswith("ReRank")] == ["ReRankStartEvent", "ReRankEndEvent"]
    assert ColbertReranker(client=client).postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(UsageError, match="query_str"):
        ColbertReranker(client=client).postprocess_nodes(given)


async def test_the_reranker_answers_alike_when_awaited(client):
    given = [NodeWithScore(node=node) for node in nodes()]
    reranker = ColbertReranker(client=client, k=3)
    assert await reranker.apostprocess_nodes(given, QueryBundle(QUERY)) == reranker.postprocess_nodes(given, query_str=QUERY)


def test_nodes_come_back_as_they_were_added(store):
    assert (store.stores_text, store.is_embedding_query) == (True, False)
    assert store.get_nodes(["cat"]) == [] and ask(store).ids == []
    given = nodes()
    given[0].metadata["title"] = "Cats"
    given[3].excluded_llm_metadata_keys = ["legs"]
    assert store.add(given) == [node.node_id for node in given]
    found = store.get_nodes([*(node.node_id for node in given), "nowhere"])
    assert sorted((node.to_dict() for node in found), key=str) == sorted((node.to_dict() for node in given), key=str)
    best = ask(store, k=2)
    assert (best.ids[0], best.nodes[0].to_dict()) == ("cat", given[0].to_dict())
    assert best.similarities == sorted(best.similarities, reverse=True) and len(best.ids) == 2


def test_nodes_of_other_kinds_are_kept(store):
    picture = ImageNode(id_="picture", text="a picture of a horse", image_url="http://example.com/horse.png")
    assert store.add([picture, TextNode(id_="blank", text=" ")]) == ["picture"]
    (found,) = store.get_nodes(["picture"])
    assert isinstance(found, ImageNode) and found.image_url == picture.image_url


def test_adding_replaces_and_deleting_is_by_document_node_or_filter(store):
    store.add(nodes())
    store.add([TextNode(id_="cat", text="another text", metadata={"legs": 5})])
    assert [node.get_content() for node in store.get_nodes(["cat"])] == ["another text"]
    store.delete("part1")
    assert {node.node_id for node in store.get_nodes()} == {"cat", "dog"}
    store.delete_nodes(["cat", "dog"], one("legs", 4))
    assert {node.node_id for node in store.get_nodes()} == {"cat"}
    with pytest.raises(UsageError, match="clear"):
        store.delete_nodes()
    store.delete_nodes(filters=one("legs", 5))
    assert store.get_nodes() == []
    store.add(nodes())
    store.clear()
    assert ask(store).ids == []


IDS = {d.id for d in ANIMALS}


@pytest.mark.parametrize(
    ("key", "operator", "value", "wanted"),
    [
        ("legs", "==", 4, {"cat", "dog"}),
        ("home", "==", None, {"fish"}),
        ("home", "!=", "house", {"bird", "fish"}),
        ("home", "!=", None, {"cat", "dog", "bird"}),
        ("legs", ">", 2, {"cat", "dog"}),
        ("legs", ">=", 2, {"cat", "dog", "bird"}),
        ("legs", "<", 2, {"fish"}),
        ("legs", "<=", 2, {"bird", "fish"}),
        ("home", "in", ["nest", "sea"], {"bird"}),
        ("home", "nin", ["house"], {"bird", "fish"}),
        ("legs", "in", [0, 2], {"bird", "fish"}),
        ("tags", "contains", "furry", {"cat"}),
        ("tags", "any", ["furry", "feathers"], {"cat", "bird"}),
        ("tags", "all", ["pet", "furry"], {"cat"}),
        ("tags", "all", [], IDS),
        ("tags", "is_empty", None, {"fish"}),
    ],
)
def test_every_operator_that_an_index_can_answer(client, key, operator, value, wanted):
    where = where_of(one(key, value, operator), client.schema)
    assert set(client.select(where)) == wanted


@pytest.mark.parametrize("condition", [*FilterCondition, None])
def test_conditions_and_nested_filters(client, condition):
    four = MetadataFilter(key="legs", value=4)
    wild = MetadataFilter(key="home", value="nest")
    nested = MetadataFilters(filters=[four, MetadataFilter(key="tags", value="furry", operator="contains")])
    both = MetadataFilters(filters=[nested, wild], condition=condition)
    wanted = {
        FilterCondition.AND: set(),
        None: set(),
        FilterCondition.OR: {"cat", "bird"},
        FilterCondition.NOT: {"dog", "fish"},
    }
    assert set(client.select(where_of(both, client.schema))) == wanted.get(condition, set())
    assert where_of(None, client.schema) == where_of(MetadataFilters(filters=[]), client.schema) == {}


@pytest.mark.parametrize("operator", list(FilterOperator))
def test_an_operator_is_answered_or_refused_in_words(client, operator):
    listed = operator in (FilterOperator.IN, FilterOperator.NIN)
    ordered = operator in (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)
    filters = one("legs" if ordered else "home", ["x"] if listed else 1 if ordered else "x", operator)
    if operator in (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE):
        with pytest.raises(FilterError, match="parts of a text"):
            where_of(filters, client.schema)
    elif operator in (FilterOperator.CONTAINS, FilterOperator.ANY, FilterOperator.ALL):
        with pytest.raises(FilterError, match="needs a list field, but the field is string"):
            where_of(filters, client.schema)
    else:
        parse_filter(where_of(filters, client.schema), client.schema)


def test_queries_are_filtered_by_metadata_documents_and_nodes(store):
    store.add(nodes())
    assert set(ask(store, filters=one("legs", 4)).ids) == {"cat", "dog"}
    assert set(ask(store, doc_ids=["part1", "nowhere"]).ids) == {"bird", "fish"}
    named = ask(store, node_ids=["fish", "cat", "nowhere"])
    assert named.ids == ["cat", "fish"]
    assert ask(store, node_ids=["fish", "cat"], filters=one("legs", 0)).ids == ["fish"]
    assert ask(store, node_ids=["fish", "cat"], doc_ids=["part1"], k=1).ids == ["fish"]
    assert set(ask(store, node_ids=[], doc_ids=[]).ids) == IDS
    whole = dict(zip(ask(store).ids, ask(store).similarities, strict=True))
    assert named.similarities == pytest.approx([whole[id_] for id_ in named.ids], abs=1e-3)


def test_modes(store):
    store.add(nodes())
    by_words = ask(store, "birds over the sea", mode=VectorStoreQueryMode.TEXT_SEARCH)
    assert "bird" in by_words.ids
    words_only = ask(store, "birds sea", mode=VectorStoreQueryMode.HYBRID, alpha=0.0, k=1)
    assert words_only.ids == ["bird"]
    assert len(ask(store, mode=VectorStoreQueryMode.HYBRID, hybrid_top_k=2).ids) == 2
    with pytest.raises(UsageError, match="mode mmr"):
        ask(store, mode=VectorStoreQueryMode.MMR)
    with pytest.raises(UsageError, match="query_embedding"):
        store.query(VectorStoreQuery(query_embedding=[0.0]))


async def test_async_does_as_sync(store):
    assert (await store.aquery(VectorStoreQuery(query_str=QUERY))).ids == []
    await store.async_add(nodes())
    for more in ({}, {"filters": one("legs", 4)}, {"node_ids": ["fish", "cat"]}, {"mode": VectorStoreQueryMode.HYBRID}):
        asked = VectorStoreQuery(query_str=QUERY, similarity_top_k=3, **more)
        awaited = await store.aquery(asked)
        assert (awaited.ids, awaited.nodes) == (store.query(asked).ids, store.query(asked).nodes)
    assert {node.node_id for node in await store.aget_nodes(["cat"])} == {"cat"}
    await store.adelete_nodes(["cat"])
    await store.adelete("part1")
    assert {node.node_id for node in await store.aget_nodes()} == {"dog"}
    await store.aclear()
    assert await store.aget_nodes() == []
    await store.aclose()


TEXT = "The cat sat on the mat. A dog barks at the moon. Birds fly over the sea. Fish swim under the ice."


def test_documents_are_ingested_through_the_splitter(store, minilm_bundle):
    splitter = ColbertSplitter(minilm_bundle, tokens=12)
    pipeline = IngestionPipeline(transformations=[splitter], vector_store=store, cache=IngestionCache())
    made = pipeline.run(documents=[LlamaDocument(id_="long", text=TEXT, metadata={"kind": "text"})])
    assert len(made) > 1 and "".join(TEXT.split()) == "".join("".join(node.text.split()) for node in made)
    assert [node.node_id for node in made] == [f"long#{number}" for number in range(len(made))]
    for node in made:
        assert (node.ref_doc_id, node.metadata) == ("long", {"kind": "text"})
        assert TEXT[node.start_char_idx : node.end_char_idx] == node.text
    best = ask(store, "the cat sat on the mat", k=1)
    assert "cat" in best.nodes[0].text and best.nodes[0].ref_doc_id == "long"
    store.delete("long")
    assert store.get_nodes() == []


async def test_the_splitter_may_be_awaited(minilm_bundle):
    splitter = ColbertSplitter(minilm_bundle, method="none")
    given = [LlamaDocument(id_="a", text=TEXT)]
    assert [node.text for node in await splitter.acall(given)] == [TEXT]
    assert splitter.to_dict()["bundle_sha256"] == minilm_bundle.sha256
    with pytest.raises(UsageError, match="words"):
        ColbertSplitter(minilm_bundle, method="words")


def test_an_index_over_the_store_needs_no_embedding_model(store, minilm_bundle):
    class Never(MockEmbedding):
        def _get_text_embedding(self, text):
            raise AssertionError(text)

        _get_query_embedding = _get_text_embedding

    never = Never(embed_dim=1)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(
        [LlamaDocument(id_=d.id, text=d.text, metadata={"legs": d.metadata["legs"]}) for d in ANIMALS],
        storage_context=context, embed_model=never, transformations=[ColbertSplitter(minilm_bundle)],
    )  # fmt: skip
    found = index.as_retriever(similarity_top_k=1, filters=one("legs", 4)).retrieve(QUERY)
    assert [n.node.ref_doc_id for n in found] == ["cat"]
    index.delete_ref_doc("cat")
    reopened = VectorStoreIndex.from_vector_store(store, embed_model=never)
    assert {n.node.ref_doc_id for n in reopened.as_retriever(similarity_top_k=9).retrieve(QUERY)} == {"dog", "bird", "fish"}


def test_hybrid_through_query_fusion(client):
    """Its async path starts an event loop for each query."""
    ways = [ColbertRetriever(client, k=4, candidates=name) for name in ("exhaustive", "bm25")]
    for use_async in (True, False):
        fusion = QueryFusionRetriever(
            ways, llm=MockLLM(), num_queries=1, mode="reciprocal_rerank", similarity_top_k=3, use_async=use_async
        )
        for _ in range(2):
            found = fusion.retrieve(QUERY)
            assert found[0].node.node_id == "cat#0" and len(found) == 3
    assert asyncio.run(fusion.aretrieve(QUERY))[0].node.node_id == "cat#0"


async def test_the_tool_gives_passages_with_their_ids(client):
    tool = search_tool(ColbertRetriever(client, k=1), description="Animals.")
    assert (tool.metadata.name, tool.metadata.description) == ("search_documents", "Animals.")
    assert list(tool.metadata.get_parameters_dict()["properties"]) == ["query"]
    for output in (tool.call(query=QUERY), await tool.acall(query=QUERY)):
        assert output.content == f"[cat#0] {ANIMALS[0].text}"
