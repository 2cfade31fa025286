"""Haystack's components, alone and in a pipeline that was written and read."""

from __future__ import annotations

import pytest
from animals import ANIMALS, QUERY
from haystack import Document, Pipeline

from colbert_vespa.haystack import ColbertRanker, ColbertRetriever, _document, where_of
from late_interaction.errors import FilterError, LocalIndexError
from query import Hit

FOUR = {"field": "meta.legs", "operator": "==", "value": 4}


@pytest.fixture
def retriever(animals):
    made = ColbertRetriever(animals, top_k=3)
    yield made
    made.close()


@pytest.fixture
def ranker(animals):
    made = ColbertRanker(animals, top_k=2)
    yield made
    made.close()


def test_the_retriever_gives_passages_with_scores_and_metadata(retriever, client):
    found = retriever.run(QUERY)["documents"]
    assert [(d.id, d.score) for d in found] == [(hit.passage_id, hit.score) for hit in client.search(QUERY, 3).hits]
    assert (found[0].id, found[0].content) == ("cat#0", ANIMALS[0].text)
    assert found[0].meta == {**ANIMALS[0].metadata, "title": "Cats", "document_id": "cat"}
    assert {d.meta["document_id"] for d in retriever.run(QUERY, filters=FOUR, top_k=9)["documents"]} == {"cat", "dog"}


def test_a_cross_encoder_puts_the_hits_in_order(crossed):
    client, address, reader = crossed
    made = ColbertRetriever(address, top_k=3, rerank_with=reader, rerank_with_top=4)
    again = ColbertRetriever.from_dict(made.to_dict())
    wanted = [hit.passage_id for hit in client.search(QUERY, 3, rerank_with=reader, rerank_with_top=4).hits]
    assert [d.id for d in again.run(QUERY)["documents"]] == wanted
    again.close()


async def test_async_answers_as_sync(retriever, ranker):
    assert await retriever.run_async(QUERY, filters=FOUR) == retriever.run(QUERY, filters=FOUR)
    given = [Document(content=d.text) for d in ANIMALS]
    assert await ranker.run_async(QUERY, given) == ranker.run(QUERY, given)


def test_the_ranker_leaves_the_documents_as_they_are(ranker, client):
    given = [Document(id=d.id, content=d.text, meta={"n": 1}, score=0.5) for d in ANIMALS]
    found = ranker.run(QUERY, given)["documents"]
    assert [(d.id, d.score) for d in found] == [
        (ANIMALS[int(hit.id)].id, hit.score) for hit in client.rerank(QUERY, [d.text for d in ANIMALS], 2)
    ]
    assert {d.score for d in given} == {0.5}
    assert len(ranker.run(QUERY, given, top_k=1)["documents"]) == 1


def test_a_pipeline_that_was_written_and_read(animals):
    pipeline = Pipeline()
    pipeline.add_component("retriever", ColbertRetriever(animals, filters=FOUR, candidates="exhaustive"))
    pipeline.add_component("ranker", ColbertRanker(animals, top_k=1))
    pipeline.connect("retriever.documents", "ranker.documents")
    read = Pipeline.loads(pipeline.dumps(), allowed_modules=["colbert_vespa.haystack"])
    found = read.run({"retriever": {"query": QUERY}, "ranker": {"query": QUERY}})
    assert [d.id for d in found["ranker"]["documents"]] == ["cat#0"]
    for name in ("retriever", "ranker"):
        read.get_component(name).close()


@pytest.mark.parametrize(
    ("operator", "value", "wanted"),
    [
        ("==", 4, {"cat", "dog"}), ("!=", 4, {"bird", "fish"}), (">", 2, {"cat", "dog"}), (">=", 2, {"cat", "dog", "bird"}),
        ("<", 2, {"fish"}), ("<=", 2, {"bird", "fish"}), ("in", [0, 2], {"bird", "fish"}), ("not in", [0, 2], {"cat", "dog"}),
        ("==", None, set()), ("!=", None, {"cat", "dog", "bird", "fish"}),
    ],
)  # fmt: skip
def test_every_comparison(client, operator, value, wanted):
    assert set(client.select(where_of({"field": "meta.legs", "operator": operator, "value": value}))) == wanted


def test_joined_and_wrong_filters(client):
    nest = {"field": "home", "operator": "==", "value": "nest"}
    for operator, wanted in (("AND", set()), ("OR", {"cat", "dog", "bird"}), ("NOT", {"cat", "dog", "bird", "fish"})):
        assert set(client.select(where_of({"operator": operator, "conditions": [FOUR, nest]}))) == wanted
    assert where_of(None) == where_of({}) == {}
    for wrong in ({"legs": 4}, {**FOUR, "operator": "like"}, {"field": "legs", "operator": "=="}):
        with pytest.raises(FilterError, match="not a Haystack filter"):
            where_of(wrong)


def test_an_index_that_is_not_there_is_told_by_warm_up(tmp_path):
    retriever = ColbertRetriever(str(tmp_path / "nowhere"))
    with pytest.raises(LocalIndexError):
        retriever.warm_up()
    retriever.close()


async def test_closing_ends_the_connections_of_async_calls_too(animals, monkeypatch):
    from query import AsyncClient

    closed = []

    def close_all(self):
        closed.append(self)

    monkeypatch.setattr(AsyncClient, "close_all", close_all)
    made = ColbertRetriever(animals, top_k=1)
    await made.run_async(QUERY)
    asking = made._opened_clients[1]
    made.close()
    assert closed == [asking]
    assert made.run(QUERY)["documents"]
    made.close()


def test_a_documents_own_metadata_are_not_overwritten():
    hit = Hit(1, "d", "d#0", 1.0, "ours", "text", {"title": "theirs", "document_id": "own"})
    assert _document(hit).meta == {"title": "theirs", "document_id": "own"}
    assert _document(Hit(1, "d", "d#0", 1.0, "ours", "text", {})).meta == {"title": "ours", "document_id": "d"}
