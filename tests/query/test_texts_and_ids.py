"""The same texts and ids are taken, and the same refused, by every call of a client, from every kind of source."""

import asyncio
import json

import numpy as np
import pytest

from feeder import FeedOptions, feed, open_sources
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError
from query import AsyncClient, Client

ODD = {"id": "a\u2028b", "title": "t\x00", "text": "hello \ud800 wor\x1eld\ufffe", "metadata": {"name": "n\x07", "year": 3}}


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_bundle):
    folder = tmp_path_factory.mktemp("odd")
    documents = [Document(**ODD), Document(7, text="second text", metadata={"year": np.int64(4)})]
    feed(documents, FeedOptions(to=str(folder / "index"), journal=folder / "journal", bundle=tiny_bundle))
    return folder / "index"


@pytest.fixture(scope="module")
def client(index):
    with Client(str(index)) as made:
        yield made


def test_a_list_a_generator_and_a_file_of_the_same_documents_are_the_same(index, tiny_bundle, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ODD))
    for number, documents in enumerate(
        ([Document(**ODD)], iter([Document(**ODD)]), open_sources([str(tmp_path / "a.jsonl")])[0])
    ):
        done = feed(documents, FeedOptions(to=str(index), journal=tmp_path / str(number), bundle=tiny_bundle))
        assert (done.already_there, done.acknowledged) == (1, 0)


@pytest.mark.parametrize("documents", [[{"id": "a"}], "abc", [None], None, 5, iter([5])])
def test_a_feed_of_something_else_is_refused(documents, index, tmp_path, tiny_bundle):
    with pytest.raises((CollectionError, UsageError), match="document"):
        feed(documents, FeedOptions(to=str(index), journal=tmp_path / "journal", bundle=tiny_bundle))


@pytest.mark.parametrize("query", ["hello \ud800", "hello\x00", "hello \udce9"])
def test_queries_are_cleaned(client, query):
    best = client.search(query, 2).hits
    assert best == client.search(query.replace(query[-1], " "), 2).hits
    assert client.score(query, [best[0].passage_id]) and client.rerank(query, ["a\ud800", "b"])
    assert asyncio.run(AsyncClient.from_client(client).search(query, 2)).hits == best


@pytest.mark.parametrize("query", ["\x00", None, 5, b"x", [None], [5], {"a": 1}, object(), [1.0, 2.0]])
def test_what_is_not_a_query_is_refused(client, query):
    for call in (client.search, lambda q: client.score(q, ["7#0"]), lambda q: client.rerank(q, ["a"])):
        with pytest.raises(UsageError, match="query"):
            call(query)


CALLS = ("get", "vectors", "score", "search")


def called(client, call, ids):
    if call == "search":
        return [hit.id for hit in client.search("hello", 5, ids=ids).hits]
    return client.score("hello", ids) if call == "score" else getattr(client, call)(ids)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("ids", ["abc", 5, {"a": 1}, [7.5], ["\x00"], ["a\ud800"], [None], [""], [True], [b"a"]])
def test_what_is_not_a_list_of_ids_is_refused(client, call, ids):
    with pytest.raises(UsageError, match="ids"):
        called(client, call, ids)


def test_whole_numbers_are_ids(client):
    for ids in ([7], (np.int64(7),), iter(["7"])):
        assert list(client.get(ids)) == ["7"]
    assert called(client, "search", [7]) == ["7"]
    assert list(client.get(["a\u2028b"])) == ["a\u2028b"]


@pytest.mark.parametrize("documents", ["abc", [5], None, [None], {"a": 1}])
def test_what_is_not_a_list_of_documents_is_not_reranked(client, documents):
    with pytest.raises(UsageError, match="documents"):
        client.rerank("hello", documents)


def test_values_of_a_filter_are_cleaned_as_those_of_documents(client):
    assert client.select({"name": "n\x07"}) == client.select({"name": "n "}) == ("a\u2028b",)
    assert client.select({"year": np.int64(4)}) == ("7",)
