"""One suite, three backends: a local index, a server before the same index, and (marker live) a Vespa node with the same
documents.

Every answer is compared with exact MaxSim over the float32 vectors, so that both agree with each other within twice the
tolerances: 2 % of a score for the local index (residuals of 4 bits), 0.02 for Vespa (bfloat16).
"""

from __future__ import annotations

import asyncio

import pytest

from late_interaction.documents import Document, passage_text
from late_interaction.errors import FilterError, UsageError
from late_interaction.maxsim import maxsim
from late_interaction.metrics import overlap_at_k
from query import AsyncClient, Client

QUERIES = ["parse command line options", "wait for a thread to finish", "split a path into its parts"]
TOLERANCES = {"local": {"rel": 0.02}, "server": {"rel": 0.02}, "vespa": {"abs": 0.02}}
EVERYTHING = 500  # more than the sample has
BY_MAXSIM = ("centroid", "exhaustive")


@pytest.fixture(scope="module", params=["local", "server", pytest.param("vespa", marks=pytest.mark.live)])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def address(backend, request):
    if backend == "vespa":
        yield request.getfixturevalue("world").url
        return
    local = str(request.getfixturevalue("sample_index"))
    if backend == "local":
        yield local
        return
    serving = pytest.importorskip("serving", reason="the serve extra is not installed")
    with serving.listening_server(local) as url:
        yield url


@pytest.fixture(scope="module")
def client(address, minilm_bundle):
    with Client(address, minilm_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def exact(stdlib_sample, minilm_encoder):
    """Query -> id -> exact MaxSim."""
    vectors = minilm_encoder.encode_documents([passage_text(d.title, d.text) for d in stdlib_sample])
    rows = {query: minilm_encoder.encode_queries([query])[0] for query in QUERIES}
    return {query: {d.id: maxsim(Q, D) for d, D in zip(stdlib_sample, vectors, strict=True)} for query, Q in rows.items()}


@pytest.fixture(scope="module")
def documents(stdlib_sample):
    return {d.id: d for d in stdlib_sample}


def shown(hits):
    return [(hit.passage_id, pytest.approx(hit.score, abs=1e-3)) for hit in hits]


@pytest.mark.parametrize("candidates", BY_MAXSIM)
def test_scores_are_maxsim_and_the_best_are_found(client, backend, exact, candidates):
    for query, result in zip(QUERIES, client.search_many(QUERIES, 10, candidates=candidates, rerank=400), strict=True):
        scores = [hit.score for hit in result.hits]
        assert scores == sorted(scores, reverse=True)
        for hit in result.hits:
            assert hit.score == pytest.approx(exact[query][hit.id], **TOLERANCES[backend])
            assert hit.stages["maxsim"] == hit.score
        best = sorted(exact[query], key=lambda id_: -exact[query][id_])
        assert overlap_at_k([hit.id for hit in result.hits], best, 10) >= 0.8
        assert result.full and result.coverage == 1.0


def test_hits_carry_what_was_fed(client, documents):
    result = client.search(QUERIES[0], 5, where={"kind": "function"})
    assert [hit.rank for hit in result.hits] == [1, 2, 3, 4, 5]
    for hit in result.hits:
        fed = documents[hit.id]
        assert (hit.passage_id, hit.title, hit.text) == (f"{hit.id}#0", fed.title, fed.text)
        assert dict(hit.metadata) == {name: value for name, value in fed.metadata.items() if value not in (None, [])}
        assert hit.index in client.indexes
    assert {"encode"} <= set(result.timings_ms)


def test_text_rows_and_several_ask_the_same(client, minilm_encoder):
    rows = minilm_encoder.encode_queries([QUERIES[0]])[0]
    text = client.search(QUERIES[0], 5, candidates="exhaustive").hits
    assert shown(client.search(rows, 5, candidates="exhaustive").hits) == shown(text)
    several = client.search_many([QUERIES[1], rows, QUERIES[0]], 5, candidates="exhaustive")
    assert [shown(result.hits) for result in several[1:]] == [shown(text), shown(text)]


def test_score_is_the_score_of_the_hits(client):
    hits = client.search(QUERIES[1], 20, candidates="exhaustive").hits
    wanted = {hit.passage_id: hit.score for hit in hits}
    found = client.score(QUERIES[1], [*reversed(wanted), 'no "such\\ passage', *wanted])
    assert found == pytest.approx(wanted, abs=1e-3)
    assert client.score(QUERIES[1], []) == {}


def test_texts_need_no_index_to_be_reranked(client, exact, documents):
    query = QUERIES[0]
    chosen = [documents[id_] for id_ in sorted(documents)[:20]]
    hits = client.rerank(query, [*chosen, "parse the options of a command line"], 5, explain=True)
    assert hits[0].id == "20"
    for hit in hits[1:]:
        assert hit.score == pytest.approx(exact[query][hit.id], abs=1e-4)
        assert sum(hit.rows) == pytest.approx(hit.score, abs=1e-4)
    assert client.rerank(query, []) == ()
    assert [hit.id for hit in client.rerank(query, [Document("a", "", "x")], 1)] == ["a"]


@pytest.mark.parametrize("candidates", ["centroid", "bm25", "hybrid", "exhaustive"])
def test_pages_are_cut_from_one_list(client, candidates):
    asked = {"candidates": candidates, "rerank": 60}
    whole = client.search(QUERIES[1], 60, offset=0, **asked).hits
    pages = [
        hit for offset in range(0, 60, 7) for hit in client.search(QUERIES[1], min(7, 60 - offset), offset=offset, **asked).hits
    ]
    assert [(hit.rank, hit.passage_id) for hit in pages] == [(hit.rank, hit.passage_id) for hit in whole]
    if candidates != "exhaustive":
        with pytest.raises(UsageError, match="ends at hit 65, but only 60 candidates"):
            client.search(QUERIES[1], 10, offset=55, **asked)


@pytest.mark.parametrize("candidates", ["centroid", "exhaustive", "bm25", "hybrid"])
def test_documents_can_be_named(client, documents, candidates):
    asked = {"candidates": candidates, "rerank": EVERYTHING}
    some = [hit.id for hit in client.search(QUERIES[0], 40, **asked).hits][::4]
    found = client.search(QUERIES[0], 40, ids=[*some, "nobody", 'say "so"'], **asked).hits
    assert {hit.id for hit in found} == set(some)
    kind = documents[some[0]].metadata["kind"]
    both = client.search(QUERIES[0], 40, ids=some, where={"kind": kind}, **asked).hits
    assert {hit.id for hit in both} == {id_ for id_ in some if documents[id_].metadata["kind"] == kind}
    for none in ([], ["nobody"]):
        assert client.search(QUERIES[0], 40, ids=none, **asked).hits == ()


def test_auto_says_what_it_chose(client, minilm_encoder):
    result = client.search(QUERIES[0], 1)
    assert result.candidates == client.strategies[0]
    assert result.chosen.startswith(f"{result.candidates} is the first of ")
    assert client.search(QUERIES[0], 1, candidates="bm25").chosen == ""
    with pytest.raises(UsageError, match="needs the query as text"):
        client.search(minilm_encoder.encode_queries(["x"])[0], candidates="bm25")


def test_weights_turn_hybrid_into_either_order(client):
    def ids(**weights):
        return [hit.id for hit in client.search(QUERIES[0], 8, candidates="hybrid", rerank=100, weights=weights).hits]

    by_words = client.search(QUERIES[0], 100, candidates="hybrid", rerank=100).hits
    assert ids(maxsim=1.0, bm25=0.0) == [h.id for h in sorted(by_words, key=lambda h: -h.stages["maxsim"])[:8]]
    assert ids(maxsim=0.0, bm25=1.0)[:3] == [h.id for h in sorted(by_words, key=lambda h: -h.stages["bm25"])[:3]]
    for wrong in ({"words": 1.0}, {"bm25": -1.0}, {"bm25": float("nan")}):
        with pytest.raises(UsageError, match="weight"):
            client.search(QUERIES[0], candidates="hybrid", weights=wrong)


@pytest.mark.parametrize("candidates", ["centroid", "bm25", "hybrid"])
def test_the_client_scores_as_the_engine(client, candidates):
    asked = {"candidates": candidates, "rerank": 50}
    engine = client.search(QUERIES[1], 10, **asked).hits
    here = client.search(QUERIES[1], 10, scored="client", **asked).hits
    if candidates == "hybrid":  # ranks of equal words differ
        assert overlap_at_k([h.id for h in here], [h.id for h in engine], 10) >= 0.7
    else:
        assert {h.id: h.score for h in here} == pytest.approx({h.id: h.score for h in engine}, abs=1e-3)
    assert [h.rank for h in here] == list(range(1, len(here) + 1))


def test_explanations_add_up(client):
    result = client.search(QUERIES[0], 3, explain=True)
    for hit in result.hits:
        assert sum(hit.rows) == pytest.approx(hit.stages["maxsim"], abs=1e-2)
        assert hit.explanation.text == passage_text(hit.title, hit.text)
        assert [match.query_word for match in hit.explanation.matches] == QUERIES[0].split()
        for row, match in enumerate(hit.explanation.matches):
            assert hit.explanation.text[match.start : match.end] == match.passage_word
            assert match.similarity == pytest.approx(hit.explanation.similarities[row].max())
    assert client.search(QUERIES[0], 1).hits[0].explanation is None


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"k": 0}, UsageError),
        ({"k": True}, UsageError),
        ({"rerank": 0}, UsageError),
        ({"offset": -1}, UsageError),
        ({"offset": 9_995}, UsageError),
        ({"timeout": 0}, UsageError),
        ({"scored": "here"}, UsageError),
        ({"candidates": "nearest"}, UsageError),
        ({"index": "nowhere"}, UsageError),
        ({"index": []}, UsageError),
        ({"where": {"nothing": 1}}, FilterError),
    ],
)
def test_what_is_wrong_is_refused_alike(client, wrong, error):
    with pytest.raises(error):
        client.search("x", **wrong)
    for query in ("  ", [[0.0]], ["x", ""]):
        with pytest.raises(UsageError):
            client.search(query)
    with pytest.raises(UsageError, match="blank"):
        client.search_many(["x", ""])


def test_async_answers_as_sync(client, address, minilm_bundle):
    async def ask():
        async with AsyncClient(address, minilm_bundle) as other:
            several = await other.search_many(QUERIES, 5, where={"kind": "function"})
            scores = await other.score(QUERIES[0], [several[0].hits[0].passage_id])
            reranked = await other.rerank(QUERIES[0], ["one", "two"])
            stages = [result async for result in other.stages(QUERIES[0], 5, candidates="centroid")]
            return several, scores, reranked, stages

    several, scores, reranked, stages = asyncio.run(ask())
    for mine, theirs in zip(client.search_many(QUERIES, 5, where={"kind": "function"}), several, strict=True):
        assert shown(theirs.hits) == shown(mine.hits)
    assert list(scores.values()) == pytest.approx([several[0].hits[0].score], abs=1e-3)
    assert len(reranked) == 2
    assert [result.stage for result in stages] in (["candidates", "reranked"], ["reranked"])
    assert shown(stages[-1].hits) == shown(client.search(QUERIES[0], 5, candidates="centroid").hits)


def test_documents_are_got_by_id(client, documents):
    ids = sorted(documents)[:3]
    wanted = [ids[2], "not there", ids[0], ids[2], "quote \" and ' and \\"]
    found = client.get(wanted)
    assert list(found) == [ids[2], ids[0]]
    for id_, (passage,) in found.items():
        fed = documents[id_]
        assert (passage.id, passage.document_id, passage.title, passage.text) == (f"{id_}#0", id_, fed.title, fed.text)
        assert dict(passage.metadata) == {name: value for name, value in fed.metadata.items() if value not in (None, [])}
    assert client.get([]) == {}
    kind = documents[ids[1]].metadata["kind"]
    assert list(client.get(ids, where={"kind": kind})) == [id_ for id_ in ids if documents[id_].metadata["kind"] == kind]
    assert client.get(ids, where={"kind": "nothing of this"}) == {}
    assert set(client.get(list(documents))) == set(documents)  # more than are asked for at once


def test_a_filter_selects_documents(client, documents):
    functions = {d.id for d in documents.values() if d.metadata["kind"] == "function"}
    assert set(client.select({"kind": "function"})) == functions
    assert set(client.select()) == set(documents)
    assert len(client.select(limit=7)) == 7
    assert client.select({"kind": "nothing of this"}) == ()
    with pytest.raises(FilterError):
        client.select({"nowhere": 1})
    with pytest.raises(UsageError, match="limit"):
        client.select(limit=0)


def test_an_async_client_beside_a_client_serves_one_event_loop_after_the_other(client, documents):
    other = AsyncClient.from_client(client)

    async def ask():
        found = await other.search(QUERIES[0], 3)
        some = await other.get([found.hits[0].id])
        selected = await other.select(limit=3)
        await other.close()
        return found, some, selected

    for _ in range(2):
        found, some, selected = asyncio.run(ask())
        assert shown(found.hits) == shown(client.search(QUERIES[0], 3).hits)
        assert some == client.get([found.hits[0].id])
        assert len(selected) == 3
    assert client.search(QUERIES[0], 1).hits  # closing the one leaves the other open
