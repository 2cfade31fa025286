"""Dense vectors that were made elsewhere, through the server: of documents and of queries."""

import json

import numpy as np
import pytest
from dense_bundles import made_bundle, with_dense
from ready import unit_rows
from serving import listening_server, made, serving

from late_interaction.documents import Document
from late_interaction.errors import UsageError
from late_interaction.ready_rows import packed_array
from query import Client, QueryVectors

AT = "/v1/indexes/index/documents"
LINES = {"content-type": "application/x-ndjson"}
GIVEN = unit_rows(4, dim=3)  # of documents a to d
TEXTS = {"a": "an old oak", "b": "a tall elm", "c": "a red fox", "d": "a grey owl"}
DOCUMENTS = [Document(id_, text=text, dense={"given": row}) for (id_, text), row in zip(TEXTS.items(), GIVEN, strict=True)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A dense model with a graph, and one without, whose vectors come with documents and queries."""
    folder = tmp_path_factory.mktemp("dense")
    return with_dense(made_bundle(folder / "tokens"), folder / "bundle", {"small": 4}, ready={"given": 3})


@pytest.fixture(scope="module")
def stored(bundle, tmp_path_factory):
    return made(tmp_path_factory.mktemp("stored") / "index", bundle, DOCUMENTS)


@pytest.fixture
def here(stored):
    with Client(stored) as client:
        yield client


def plain(hits):
    return [(hit["passage_id"], pytest.approx(hit["score"], abs=1e-4)) for hit in hits]


async def results(http, **body):
    answer = await http.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return [result["hits"] for result in answer.json()["results"]]


async def test_documents_bring_their_dense_vectors(tmp_path, bundle):
    folder = made(tmp_path / "index", bundle, DOCUMENTS[:1])
    forms = [GIVEN[1].tolist(), packed_array(GIVEN[2].astype(np.float16)), [GIVEN[3].tolist()]]
    async with serving(folder) as http:
        for id_, form in zip("bc", forms):
            answer = await http.put(f"{AT}/{id_}", json={"text": TEXTS[id_], "dense": {"given": form}})
            assert answer.status_code == 200, answer.text
        line = json.dumps({"id": "d", "text": TEXTS["d"], "dense": {"given": forms[2]}}).encode()
        answer = await http.post(AT, content=line, headers=LINES)
        assert json.loads(answer.text)["status"] == 200, answer.text
        for dense, wrong in (
            ({}, "given"),
            ({"given": [1.0, 0.0]}, "given"),
            ({"other": [1.0]}, "other"),
            ({"given": {"base64": "AAAA", "shape": [3]}}, "given"),
            ({"given": "AAAA"}, "dense"),
        ):
            answer = await http.put(f"{AT}/x", json={"text": "x", "dense": dense})
            assert answer.status_code == 422 and wrong in answer.text, answer.text
            line = json.dumps({"id": "x", "text": "x", "dense": dense}).encode()
            assert json.loads((await http.post(AT, content=line, headers=LINES)).text)["status"] == 422
    with Client(folder) as client:
        for id_, row in zip("abcd", GIVEN):
            query = QueryVectors(unit_rows(2, dim=16), {"given": row})
            best = client.search(query, 1, candidates="hybrid", weights={"dense": 1.0}, dense="given").hits[0]
            assert (best.id, best.stages["dense"]) == (id_, pytest.approx(1, abs=0.01))


async def test_queries_bring_their_dense_vectors(stored, here):
    rows = unit_rows(2, dim=16)
    options = {"k": 4, "candidates": "dense", "dense": "given"}
    wanted = [plain([h.to_json() for h in here.search(QueryVectors(rows, {"given": row}), **options).hits]) for row in GIVEN]
    async with serving(stored) as http:
        bodies = [
            {"rows": rows.tolist(), "dense": {"given": GIVEN[0].tolist()}},
            {"rows": packed_array(rows), "dense": {"given": packed_array(GIVEN[1])}},
        ]
        assert [plain(hits) for hits in await results(http, queries=bodies, **options)] == wanted[:2]
        assert [plain(hits) for hits in await results(http, query=bodies[1], **options)] == wanted[1:2]
        both = {**bodies[0], "text": "old oak"}
        mixed = {"k": 4, "candidates": "hybrid", "weights": {"bm25": 1.0, "dense": 1.0}, "dense": "given"}
        asked = QueryVectors(rows, {"given": GIVEN[0]}, "old oak")
        (found,) = await results(http, query=both, **mixed)
        assert plain(found) == plain([hit.to_json() for hit in here.search(asked, **mixed).hits])
        for query, wrong in (
            ({"rows": rows.tolist()}, "given"),
            ({"rows": rows.tolist(), "dense": {"given": [1.0, 2.0]}}, "given"),
            ({"rows": rows.tolist(), "dense": {"given": [0.0] * 3}}, "given"),
            ({"dense": {"given": [1.0] * 3}}, "rows"),
            ({**both, "text": "x" * 100_001}, "100,00"),
            ("old oak", "given"),
        ):
            answer = await http.post("/v1/search", json={"query": query, **options})
            assert answer.status_code == 422 and wrong in answer.text, (query, answer.text)


async def test_other_routes_take_such_a_query(stored, here):
    rows = unit_rows(2, dim=16)
    query, asked = {"rows": packed_array(rows), "dense": {}, "text": "old oak"}, QueryVectors(rows, text="old oak")
    async with serving(stored) as http:
        scores = (await http.post("/v1/indexes/index/score", json={"query": query, "ids": ["a#0"]})).json()["scores"]
        assert scores == pytest.approx(here.score(asked, ["a#0"]), abs=1e-4)
        hits = (await http.post("/v1/rerank", json={"query": query, "texts": list(TEXTS.values())})).json()["hits"]
        assert plain(hits) == plain([hit.to_json() for hit in here.rerank(asked, list(TEXTS.values()))])


def test_a_client_of_a_server_sends_them(stored, here):
    rows = unit_rows(2, dim=16)
    options = {"candidates": "dense", "dense": "given"}
    with listening_server(f"index={stored}") as url, Client(f"{url}#index") as client:
        queries = [QueryVectors(rows, {"given": row}) for row in GIVEN]
        for found, wanted in zip(client.search_many(queries, 4, **options), here.search_many(queries, 4, **options)):
            assert plain([hit.to_json() for hit in found.hits]) == plain([hit.to_json() for hit in wanted.hits])
        with pytest.raises(UsageError):
            client.search(QueryVectors(rows), 4, **options)
