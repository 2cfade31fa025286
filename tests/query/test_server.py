"""A client of a server: what is found there, without a model here, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys

import httpx
import numpy as np
import pytest
from animals import ANIMALS, QUERY
from vespa_bundles import small_bundle

from colbert_vespa.cli.commands import main
from colbert_vespa.monitor.checks import Monitor, Watched
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import (
    FilterError,
    IncompleteAnswer,
    IndexBeingWritten,
    LocalIndexError,
    UsageError,
    VespaBusy,
    VespaRefused,
    VespaTimeout,
    VespaUnreachable,
)
from late_interaction.problems import PROBLEMS
from query import AsyncClient, Client, ClientSettings, QueryVectors
from query.server_answer import server_error
from vespa_app.running.application import Application

serving = pytest.importorskip("serving", reason="the serve extra is not installed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("bundle") / "bundle", onnx=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory, bundle):
    return serving.made(tmp_path_factory.mktemp("served") / "animals", bundle)


@pytest.fixture(scope="module")
def url(local, tmp_path_factory, bundle):
    other = serving.made(tmp_path_factory.mktemp("served") / "more%2Fof", bundle, ANIMALS[:2])
    with serving.listening_server(local, other) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with Client(url) as opened:
        yield opened


@pytest.fixture(scope="module")
def here(local):
    with Client(local) as opened:
        yield opened


def plain(result):
    return [hit.to_json() for hit in result.hits]


def test_every_option_means_the_same(client, here):
    for options in (
        {"k": 2, "where": {"legs": {"$gte": 2}}},
        {"candidates": "hybrid", "weights": {"maxsim": np.float32(0.5), "bm25": 1.0}, "rerank": 3},
        {"candidates": "bm25", "explain": True, "ids": ["cat", "dog"]},
        {"k": 2, "offset": 1, "group": True, "probes": 4, "rerank": 4, "timeout": 30.0, "scored": "client"},
        {"candidates": "exhaustive", "index": "animals"},
    ):
        ours, theirs = client.search(QUERY, **options), here.search(QUERY, **options)
        assert plain(ours) == plain(theirs)
        assert (ours.candidates, ours.matched, ours.stage) == (theirs.candidates, theirs.matched, theirs.stage)
        for mine, other in zip(ours.hits, theirs.hits, strict=True):
            if options.get("explain"):
                assert mine.explanation.words == other.explanation.words
                np.testing.assert_allclose(mine.explanation.similarities, other.explanation.similarities, atol=1e-6)


def test_ready_rows_are_taken_in_any_form(client, url, here, bundle, tmp_path, capsys):
    rows = Encoder(bundle).encode_queries([QUERY])[0]
    wanted = plain(here.search(rows, 3))
    for query in (rows, QueryVectors(rows), QueryVectors(rows.ravel())):
        assert plain(client.search(query, 3)) == wanted
    np.savez(tmp_path / "query.npz", q=rows)
    with pytest.raises(SystemExit) as ended:
        main(["search", "--vectors", str(tmp_path / "query.npz"), "--from", f"{url}#animals", "-k", "3"])
    assert not ended.value.code, capsys.readouterr().err
    for more in (QueryVectors(rows, text=QUERY), QueryVectors(rows, {"unused": [1.0]})):
        assert plain(client.search(more, 3)) == wanted
    words = QueryVectors(rows, text=QUERY)
    assert plain(client.search(words, 3, candidates="bm25")) == plain(here.search(words, 3, candidates="bm25"))
    assert client.score(words, ["cat#0"]) == pytest.approx(here.score(words, ["cat#0"]), abs=1e-4)


def test_the_client_says_what_is_served(client, url, here):
    assert client.indexes == ("animals", "more%2Fof")
    assert (client.address, client.model) == (f"{url}#animals", here.model)
    assert (client.schema, client.strategies) == (here.schema, here.strategies)
    with Client(f"{url}#more%2Fof") as other:
        assert set(other.select()) == {"cat", "dog"}
        assert {hit.index for hit in other.search(QUERY, index=["animals", "more%2Fof"]).hits} == set(client.indexes)
    with pytest.raises(UsageError, match="'nothing' is unknown at .*; it serves: animals, more%2Fof"):
        Client(f"{url}#nothing")


def test_stored_things_are_the_same(client, here, bundle):
    documents = [document.id for document in ANIMALS]
    passages = [f"{id_}#0" for id_ in documents]
    assert client.get([*documents, "nobody"]) == here.get(documents)
    assert client.get(documents, where={"legs": 4}) == here.get(documents, where={"legs": 4})
    rows = Encoder(bundle).encode_queries([QUERY])[0]
    assert client.score(rows, passages) == client.score(QUERY, passages) == here.score(QUERY, passages)
    ours, theirs = client.vectors([*passages, "nobody#0"]), here.vectors(passages)
    assert list(ours) == list(theirs)
    for id_, D in theirs.items():
        np.testing.assert_array_equal(ours[id_], D)


def test_more_than_one_request_holds_are_asked_in_several(client, here):
    queries = [f"{QUERY} {number}" for number in range(230)]
    assert [plain(one) for one in client.search_many(queries, 2)] == [plain(one) for one in here.search_many(queries, 2)]
    texts = [Document(f"d{number}", f"title {number}", f"cat number {number}", {"n": number}) for number in range(230)]
    ours, theirs = client.rerank(QUERY, texts, 7, explain=True), here.rerank(QUERY, texts, 7, explain=True)
    assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=1e-5)
    assert [hit.rank for hit in ours] == list(range(1, 8))
    assert {hit.id for hit in ours} == {hit.id for hit in theirs}
    assert client.rerank(QUERY, ["", "cat"])[-1].score == -np.inf


async def test_stages_come_in_order(url):
    async with AsyncClient(url) as client:
        seen = [result.stage async for result in client.stages(QUERY, 2)]
        assert seen in (["candidates", "reranked"], ["reranked"])
        both = await asyncio.gather(*(client.search(QUERY, 2) for _ in range(5)))
        assert len({tuple(hit.id for hit in result.hits) for result in both}) == 1


def test_errors_are_those_of_an_index(client, url, local, bundle):
    with pytest.raises(FilterError, match="nothing"):
        client.search(QUERY, where={"nothing": 1})
    with pytest.raises(UsageError, match="candidates 'nearest' are unknown"):
        client.search(QUERY, candidates="nearest")
    with pytest.raises(UsageError, match="does not hand out its bundle"):
        _ = client.bundle
    with Client([url, local]) as mixed, pytest.raises(UsageError, match="search each address separately"):
        mixed.search(QUERY)
    with Client(url, bundle) as given:
        assert given.bundle is bundle
    assert pickle.loads(pickle.dumps(client)).indexes == client.indexes


def test_who_needs_vespa_is_told(url):
    with pytest.raises(VespaRefused, match="is a server of `colbert-vespa serve`"):
        Application.read(url)
    with Monitor(Watched(url)) as monitor:
        rows = monitor.look().found.rows
    (said,) = [row.says for row in rows if row.area == "application"]
    assert f"{url} is a server of `colbert-vespa serve`" in said
    from colbert_vespa.server.engine import Engine
    from colbert_vespa.server.settings import ServedAddress

    with pytest.raises(UsageError, match="is itself a server"):
        Engine([ServedAddress(url)])


def test_every_problem_is_the_error_it_was():
    for error, (status, kind) in PROBLEMS.items():
        answer = httpx.Response(status, json={"type": f"urn:colbert-vespa:{kind}", "detail": "why"})
        answer.request = httpx.Request("GET", "http://here")
        found = server_error(answer, "http://here")
        assert type(found) is (error if kind != "server" else VespaRefused), kind
        assert "why" in str(found)
    assert {LocalIndexError, IncompleteAnswer, IndexBeingWritten, VespaTimeout, VespaUnreachable} <= set(PROBLEMS)


class Scripted(httpx.BaseTransport):
    """A server that lists one index and answers a search by what it is given, one after the other."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def handle_request(self, request):
        self.requests.append(request)
        if request.url.path.startswith("/document/"):
            return problem(404, "not-found")
        if request.url.path == "/v1/indexes":
            facts = {"name": "one", "backend": "local", "candidates": ["centroid"], "fields": {}, "model": "m", "dim": 2}
            return httpx.Response(200, json={"indexes": [facts]})
        return self.answers.pop(0)


def problem(status, kind, detail="why", **headers):
    body = {"type": f"urn:colbert-vespa:{kind}", "detail": detail}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json", **headers})


def found():
    result = {"hits": [], "candidates": "centroid", "matched": 0, "reranked": 0, "stage": "reranked", "chosen": ""}
    more = {"coverage": 1.0, "searched": None, "degraded": [], "timings_ms": {"encode": 1.0}, "notes": []}
    return httpx.Response(200, json={"results": [result | more]})


def scripted(*answers, **settings):
    slept = []
    transport = Scripted(*answers)
    client = Client("http://127.0.0.1:8000", transport=transport, sleep=slept.append, settings=ClientSettings(**settings))
    return client, transport, slept


def test_a_busy_server_is_asked_again_when_it_says():
    client, transport, slept = scripted(problem(429, "busy", **{"Retry-After": "3"}), found())
    result = client.search("x")
    assert slept == [3.0]
    assert len(result.notes) == 1 and "sent 2 times" in result.notes[0]
    assert len(transport.requests) == 4  # Vespa?, what is served, twice the query
    client, _, slept = scripted(problem(429, "too-many-requests", **{"Retry-After": "30"}), timeout=5.0)
    with pytest.raises(VespaBusy, match="answered 429: why") as raised:
        client.search("x")
    assert (raised.value.retry_after, slept) == (30.0, [])


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"results": [{"hits": 1}]}),
        httpx.Response(200, json={"results": []}),
    ],
)
def test_what_is_not_an_answer_is_refused_in_one_line(answer):
    client, _, _ = scripted(answer)
    with pytest.raises(VespaRefused) as raised:
        client.search("x")
    assert "http://127.0.0.1:8000" in str(raised.value)


def test_an_answer_that_is_not_full_is_an_error_where_it_has_to_be():
    whole = found().json()["results"][0]
    client, _, _ = scripted(httpx.Response(200, json={"results": [{**whole, "coverage": 0.5}]}), require_full=True)
    with pytest.raises(IncompleteAnswer):
        client.search("x")


KEY = "a-key-that-nobody-may-read"


@pytest.mark.parametrize("way", ["environment", "file"])
def test_a_key_is_sent_and_never_shown(way, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    if way == "environment":
        monkeypatch.setenv("COLBERT_VESPA_API_KEY", KEY)
    else:
        (tmp_path / "key").write_text(f"{KEY}\n")
        monkeypatch.setenv("COLBERT_VESPA_TOKEN_FILE", str(tmp_path / "key"))
    client, transport, _ = scripted(problem(401, "unauthorized"))
    with pytest.raises(VespaRefused, match="COLBERT_VESPA_API_KEY") as raised:
        client.search("x")
    assert [request.headers["authorization"] for request in transport.requests[1:]] == [f"Bearer {KEY}"] * 2
    assert KEY not in caplog.text + str(raised.value) + repr(transport.requests[-1].headers)
    with pytest.raises(UsageError, match="https only") as plain_text:
        Client("http://elsewhere:8000", transport=Scripted())
    assert KEY not in str(plain_text.value)


def test_no_model_is_loaded_here(url):
    code = (
        "import sys; from query import Client\n"
        f"with Client({url!r}) as client:\n"
        f"    assert client.search({QUERY!r}, explain=True).hits[0].explanation.matches\n"
        f"    assert client.rerank({QUERY!r}, ['a', 'b'])\n"
        "print([name for name in ('tokenizers', 'onnxruntime', 'numba', 'fastapi', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_frameworks_search_over_a_server(url, client, here):
    langchain, llamaindex = pytest.importorskip("colbert_vespa.langchain"), pytest.importorskip("colbert_vespa.llamaindex")
    haystack = pytest.importorskip("colbert_vespa.haystack")
    wanted = [hit.text for hit in here.search(QUERY, 2).hits]
    retriever = langchain.ColbertRetriever(client=client, k=2)
    assert [document.page_content for document in retriever.invoke(QUERY)] == wanted
    nodes = llamaindex.ColbertRetriever(client, k=2).retrieve(QUERY)
    assert [node.node.text for node in nodes] == wanted
    component = haystack.ColbertRetriever(url, top_k=2)
    assert [document.content for document in component.run(QUERY)["documents"]] == wanted
    component.close()


def test_a_key_with_a_filter_reads_nothing_else_by_id(local):
    from colbert_vespa.server.access import READ, Access
    from colbert_vespa.server.door import Door

    class Restricted(Door):
        def admitted(self, request, role):
            return Access("k", READ, None, {"legs": 4})

    passages = [f"{document.id}#0" for document in ANIMALS]
    with serving.listening_server(local, door=Restricted()) as url, Client(url) as client:
        assert set(client.score(QUERY, passages)) == set(client.vectors(passages)) == {"cat#0", "dog#0"}
        assert set(client.get([document.id for document in ANIMALS])) == set(client.select()) == {"cat", "dog"}
