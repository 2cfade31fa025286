"""What callers may give a client: each argument is checked before anything is encoded or asked, sync and async alike."""

import asyncio
import copy
import math
import pickle

import httpx
import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from late_interaction.errors import ColbertVespaError, FilterError, UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from query import AsyncClient, Client, ClientSettings

VECTORS = token_vectors(np.random.default_rng(0), 20)
ROWS = VECTORS[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    schema = MetadataSchema({"legs": FieldType.LONG})
    index = LocalIndex.create(folder / "i", bundle=fake_bundle(folder / "b"), schema=schema, codec="float32")
    with index.writer() as writer:
        for number, rows in enumerate(VECTORS):
            writer.put(passage(str(number), legs=number), rows)
        writer.commit()
    return folder / "i"


@pytest.fixture(scope="module")
def client(path):
    with Client(path) as opened:
        yield opened


COUNTS = [-1, 0, True, False, 1.0, 1.5, "3", None, [3], math.nan, math.inf, np.float64(3), 10**9, np.int64(-1), np.True_]
SECONDS = [0, -1, math.nan, math.inf, True, "1", [1.0], np.float32("nan")]
IDS = ["12", b"12", 12, {"12": 1}, [None], [1.5], [True], [["12"]], [""], ["a\x00"], ["\ud800"]]
WRONG = [
    *(({"k": value}, UsageError) for value in COUNTS),
    *(({name: value}, UsageError) for name in ("rerank", "probes") for value in COUNTS if value is not None),
    *(({"offset": value}, UsageError) for value in COUNTS if value not in (None, 0) or value is False),
    *(({"timeout": value}, UsageError) for value in SECONDS),
    *(({"ids": value}, UsageError) for value in IDS),
    *(({name: value}, UsageError) for name in ("group", "explain") for value in ("false", 1, None, [])),
    *(({"weights": value}, UsageError) for value in ([1.0], "bm25", {"bm25": True}, {"bm25": math.nan}, {"bm25": "1"}, {1: 1})),
    *(({"scored": value}, UsageError) for value in ("here", None, [], True)),
    *(({"candidates": value}, UsageError) for value in ("nearest", None, 3, ["bm25"])),
    *(({"index": value}, UsageError) for value in (3, [3], [], "nowhere", b"i", {"i": 1}, ["i", "i"])),
    *(({"where": value}, FilterError) for value in ([], "", "legs", 0, False, {"legs": [1]}, {1: 2})),
]


@pytest.mark.parametrize(("wrong", "error"), WRONG)
def test_search(client, path, wrong, error):
    with pytest.raises(error) as why:
        client.search(ROWS, **wrong)
    (name,) = wrong
    assert name.rstrip("s") in str(why.value) or name == "where"

    async def ask():
        async with AsyncClient(path) as other:
            await other.search(ROWS, **wrong)

    with pytest.raises(error):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "query", [None, 3, b"x", {"a": 1}, {"a"}, "", " ", "\x00", np.zeros((0, 16)), np.zeros((1, 15)), np.nan]
)
def test_queries(client, query):
    with pytest.raises(UsageError):
        client.search(query)
    with pytest.raises(UsageError):
        client.score(query, ["1#0"])


def test_one_query_or_a_list_of_them(client, path):
    for several in ([ROWS, ROWS], (ROWS,), ["x"], []):
        with pytest.raises(UsageError, match="search_many"):
            client.search(several)
    for single in ("a text", b"x", 3, None, {"a": 1}):
        with pytest.raises(UsageError, match="queries must be a list"):
            client.search_many(single)
    one = client.search(query=ROWS, k=3)
    assert [[hit.id for hit in result.hits] for result in client.search_many([ROWS, ROWS], 3)] == 2 * [
        [hit.id for hit in one.hits]
    ]
    assert client.search_many(queries=[]) == []
    with pytest.raises(TypeError, match="query"):
        client.search()

    async def ask():
        async with AsyncClient(path) as other:
            return await other.search_many(queries=[ROWS], k=3), await other.search(query=ROWS, k=3)

    (first,), second = asyncio.run(ask())
    assert first.hits == second.hits


@pytest.mark.parametrize("wrong", [{"offset": 0}, {"scored": "client"}, {"k": 0}])
def test_stages_are_of_one_page_that_the_engine_scores(path, wrong):
    async def ask():
        async with AsyncClient(path) as other:
            return [result async for result in other.stages(ROWS, **wrong)]

    with pytest.raises(UsageError, match=next(iter(wrong))):
        asyncio.run(ask())


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("call", ["score", "get", "vectors"])
def test_ids(client, call, ids):
    with pytest.raises(UsageError, match="ids"):
        client.score(ROWS, ids) if call == "score" else getattr(client, call)(ids)


def test_whole_numbers_are_ids(client):
    assert list(client.get([3, np.int64(4), "5"])) == ["3", "4", "5"]
    assert {hit.id for hit in client.search(ROWS, 3, ids=[3, np.int32(4)]).hits} == {"3", "4"}
    assert list(client.get(iter(["1", "2"]))) == ["1", "2"]


@pytest.mark.parametrize("seconds", SECONDS)
def test_timeouts(client, seconds):
    calls = (
        lambda: client.score(ROWS, ["1#0"], timeout=seconds),
        lambda: client.get(["1"], timeout=seconds),
        lambda: client.select(timeout=seconds),
        lambda: client.vectors(["1#0"], timeout=seconds),
        lambda: ClientSettings(timeout=seconds),
        lambda: ClientSettings(hedge_after=seconds),
    )
    for call in calls:
        with pytest.raises(UsageError, match=r"timeout|hedge_after"):
            call()


@pytest.mark.parametrize("where", [[], "", 0, {"legs": [1]}, {"nothing": 1}])
def test_filters(client, where):
    for call in (lambda: client.get(["1"], where=where), lambda: client.get([], where=where), lambda: client.select(where)):
        with pytest.raises(FilterError):
            call()


@pytest.mark.parametrize("limit", COUNTS)
def test_limits(client, limit):
    with pytest.raises(UsageError, match="limit"):
        client.select(limit=limit)


@pytest.mark.parametrize("k", [value for value in COUNTS if value not in (None, 10**9)])
def test_reranking_counts(client, k):
    with pytest.raises(UsageError, match="k must"):
        client.rerank(ROWS, ["a text"], k)


@pytest.mark.parametrize("documents", ["a text", b"x", 3, None, {"a": 1}, [3], [None], ["a", b"b"], [["a"]]])
def test_reranking_documents(client, documents):
    with pytest.raises(UsageError, match="documents"):
        client.rerank(ROWS, documents)


def test_numbers_of_numpy(client):
    hits = client.search(ROWS, np.int64(3), rerank=np.int32(10), probes=np.uint8(2), timeout=np.float32(9)).hits
    assert [hit.rank for hit in hits] == [1, 2, 3]
    page = client.search(ROWS, np.int16(2), offset=np.int64(1), weights={"bm25": np.float64(0.5)}).hits
    assert [hit.rank for hit in page] == [2, 3]
    assert len(client.select({"legs": {"$in": np.array([1, 2])}}, np.int64(5))) == 2
    assert client.search(ROWS, 3, group=np.True_, explain=np.False_).hits
    ClientSettings(timeout=np.float64(1), retries=np.int64(0), connections=np.int8(1), version=np.int64(1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1}, {"retries": 1.5}, {"retries": math.nan}, {"retries": True}, {"connections": 0}, {"connections": "4"},
        {"require_full": 1}, {"soft_timeout": "no"}, {"expected": [("a", 1)]}, {"expected": {"a": -1}},
        {"expected": {"a": 1.5}}, {"version": 1.5}, {"version": True},
    ],
)  # fmt: skip
def test_settings(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ClientSettings(**wrong)


def test_a_pickled_client_opens_its_indexes_anew(client, path):
    wanted = [hit.id for hit in client.search(ROWS, 3).hits]
    for made in (pickle.loads(pickle.dumps(client)), copy.deepcopy(client)):
        with made:
            assert [hit.id for hit in made.search(ROWS, 3).hits] == wanted

    async def ask(other):
        async with other:
            return [hit.id for hit in (await other.search(ROWS, 3)).hits]

    assert asyncio.run(ask(pickle.loads(pickle.dumps(AsyncClient(path))))) == wanted
    assert asyncio.run(ask(pickle.loads(pickle.dumps(AsyncClient.from_client(client))))) == wanted


def test_a_client_with_a_transport_of_its_own_is_not_pickled(path):
    with Client(path, transport=httpx.MockTransport(lambda _: None)) as client:
        for copied in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(ColbertVespaError, match="transport"):
                copied(client)


def test_settings_of_a_search_in_an_index_take_numbers_of_numpy():
    settings = SearchSettings(np.int64(3), np.int32(2))
    assert (settings.probes, settings.rerank) == (3, 2) and type(settings.probes) is int
    with pytest.raises(UsageError, match="probes"):
        SearchSettings(np.float64(3))


@pytest.mark.parametrize("address", [None, 5, b"index", {"index"}])
def test_an_address_of_another_type_is_told(address):
    with pytest.raises(UsageError, match="an address must be a string, a Path or a list of them"):
        Client(address)


def test_a_pickled_client_is_opened_in_another_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with Client(path.name) as client:
        data = pickle.dumps(client)
    monkeypatch.chdir(tmp_path)
    with pickle.loads(data) as client:
        assert client.get([]) == {}
