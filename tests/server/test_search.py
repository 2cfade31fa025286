"""Search, rerank, explain and encode give what the client gives."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
import pytest
from animals import ANIMALS, QUERY
from serving import refused

from colbert_vespa.server.models import ExplainRequest, RerankRequest, SearchRequest
from query import Client
from query.options import SearchOptions


@pytest.fixture(scope="module")
def client(animals):
    with Client(animals) as opened:
        yield opened


def same(found, wanted, *, without=("timings_ms", "chosen")):
    plain = {name: value for name, value in wanted.to_json().items() if name not in without}
    got = {name: value for name, value in found.items() if name not in without}
    for hit in got["hits"]:
        if explanation := hit.get("explanation"):
            del explanation["words"], explanation["similarities"]
    assert got == pytest.approx(plain, abs=1e-5) if not plain["hits"] else rounded(got) == rounded(plain)


def rounded(value):
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def test_the_request_has_every_option_of_a_search_and_no_other():
    options = {field.name: field.default for field in dataclasses.fields(SearchOptions)}
    del options["rerank_with"]  # the server has the cross-encoder
    for model, without in (
        (SearchRequest, {"query", "queries", "rows"}), (RerankRequest, {"query", "rows", "texts", "ids", "k"}),
        (ExplainRequest, {"query", "rows", "id", "ids"}),
    ):  # fmt: skip
        found = {name: field.default for name, field in model.model_fields.items() if name not in without}
        assert found.items() <= options.items()
        if model is SearchRequest:
            assert found == options


@pytest.mark.parametrize(
    "options",
    [{}, {"k": 2}, {"where": {"legs": 4}, "k": 3}, {"candidates": "hybrid", "weights": {"bm25": 0.5}}, {"explain": True},
     {"ids": ["cat", "fish"]}, {"offset": 1, "k": 1}, {"group": True, "candidates": "bm25"}, {"candidates": "exhaustive"}],
)  # fmt: skip
async def test_search_gives_what_the_client_gives(http, client, options):
    answer = await http.post("/v1/search", json={"query": QUERY, **options})
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["results"]
    same(found, client.search(QUERY, **options))
    assert found["timings_ms"]["encode"] > 0


async def test_several_queries_and_ready_rows(http, client):
    rows = client.encoder.encode_queries([QUERY])[0]
    packed = {"base64": base64.b64encode(rows.astype("<f4").tobytes()).decode(), "shape": list(rows.shape)}
    halves = {"base64": base64.b64encode(rows.astype("<f2").tobytes()).decode(), "dtype": "float16", "shape": list(rows.shape)}
    answer = await http.post("/v1/search", json={"queries": [QUERY, "fish", packed, rows.tolist(), halves], "k": 2})
    results = answer.json()["results"]
    assert [rounded(r["hits"]) for r in results[2:4]] == [rounded(results[0]["hits"])] * 2
    assert [hit["id"] for hit in results[4]["hits"]] == [hit["id"] for hit in results[0]["hits"]]
    same(results[1], client.search("fish", 2))
    (alone,) = (await http.post("/v1/search", json={"rows": packed, "k": 2})).json()["results"]
    assert rounded(alone["hits"]) == rounded(results[0]["hits"])
    assert (await http.post("/v1/search", json={"queries": []})).json() == {"results": []}


async def test_an_explanation_has_every_word_with_every_word(http, client):
    answer = await http.post("/v1/explain", json={"query": QUERY, "id": "cat"})
    (hit,) = answer.json()["results"][0]["hits"]
    (wanted,) = client.search(QUERY, ids=["cat"], candidates="exhaustive", explain=True).hits
    assert hit["explanation"]["words"] == [list(word) for word in wanted.explanation.words]
    np.testing.assert_allclose(hit["explanation"]["similarities"], wanted.explanation.similarities, atol=1e-5)
    assert sum(hit["rows"]) == pytest.approx(hit["score"], abs=1e-4)


async def test_rerank_takes_texts_or_ids(http, client):
    texts = [d.text for d in ANIMALS]
    answer = await http.post("/v1/rerank", json={"query": QUERY, "texts": texts, "k": 2})
    assert rounded(answer.json()["hits"]) == rounded([hit.to_json() for hit in client.rerank(QUERY, texts, 2)])
    answer = await http.post("/v1/rerank", json={"query": QUERY, "ids": ["fish", "cat", "nowhere"]})
    found = {hit["passage_id"]: hit["score"] for hit in answer.json()["hits"]}
    assert found == pytest.approx(client.score(QUERY, ["fish#0", "cat#0"]), abs=1e-4)


async def test_encode_gives_vectors(http, client):
    for side, encode in (("queries", client.encoder.encode_queries), ("documents", client.encoder.encode_documents)):
        wanted = encode([QUERY, "fish"])
        plain = (await http.post("/v1/encode", json={side: [QUERY, "fish"]})).json()["vectors"]
        packed = (await http.post("/v1/encode", json={side: [QUERY, "fish"], "format": "base64"})).json()["vectors"]
        for rows, numbers, one in zip(wanted, plain, packed, strict=True):
            np.testing.assert_allclose(numbers, rows, atol=1e-5)
            read = np.frombuffer(base64.b64decode(one["base64"]), "<f4").reshape(one["shape"])
            np.testing.assert_allclose(read, rows, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("search", {"query": ""}, "the query is blank"),
        ("search", {}, "give either query"),
        ("search", {"query": "x", "queries": ["y"]}, "not several"),
        ("search", {"query": "x", "k": 0}, "k must be"),
        ("search", {"query": "x", "k": "2"}, "body.k"),
        ("search", {"query": "x", "k": 5000}, "at most 1,000"),
        ("search", {"query": "x", "filter": {}}, "body.filter"),
        ("search", {"query": "x", "where": {"wings": 2}}, "'wings' unknown"),
        ("search", {"query": "x", "candidates": "magic"}, "candidates 'magic' are unknown at animals"),
        ("search", {"query": "x", "timeout": 0}, "timeout must be above 0"),
        ("search", {"query": "x", "timeout": 1e9}, "at most 60"),
        ("search", {"query": "x" * 100_001}, "at most 100,000 characters"),
        ("search", {"queries": ["x"] * 257}, "at most 256"),
        ("search", {"rows": [[1.0]]}, "of shape"),
        ("search", {"rows": [[1e300] * 16]}, "finite numbers"),
        ("search", {"rows": [[1.0], [1.0, 2.0]]}, "equally many"),
        ("search", {"rows": {"base64": "AAAA", "shape": [1, 16]}}, "3 bytes are not 1 x 16"),
        ("search", {"rows": {"base64": "!", "shape": [1, 16]}}, "not base64"),
        ("search", {"rows": {"base64": "", "shape": [-1, 16]}}, "bytes are not"),
        ("rerank", {"query": "x"}, "either texts or ids"),
        ("rerank", {"query": "x", "texts": ["y"], "where": {}}, "where selects stored"),
        ("explain", {"query": "x"}, "either id or ids"),
        ("encode", {"queries": ["x"], "documents": ["y"]}, "either queries or documents"),
    ],
)
async def test_what_is_wrong_is_told(http, path, body, says):
    detail = await refused(http.post(f"/v1/{path}", json=body), 422)
    assert says in detail


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"query": NaN}', b'{"query": "x", "query": "y"}', b"[" * 100_000])
async def test_what_is_not_json_is_told(http, body):
    said = await refused(http.post("/v1/search", content=body, headers={"content-type": "application/json"}), 400)
    assert said.startswith("the body is not JSON")


async def test_an_unknown_index_is_not_found(http):
    assert "there is no index 'dogs'; known: animals" == await refused(
        http.post("/v1/search", json={"query": "x", "index": "dogs"}), 404
    )
