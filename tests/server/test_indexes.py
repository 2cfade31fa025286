"""What is served, what it holds, and single documents."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from animals import ANIMALS
from serving import made, refused, serving

from late_interaction.documents import Document

ODD = ["a/b", "a%2Fb", "a b", "?x=1", "#", "ü/日本", "..", "a//b/", "%", "&;=", "line\nbreak"]


async def test_an_index_says_what_it_holds(http, animals):
    (brief,) = (await http.get("/v1/indexes")).json()["indexes"]
    assert (brief["name"], brief["backend"], brief["dim"]) == ("animals", "local", 16)
    assert brief["fields"]["legs"] == "long"
    whole = (await http.get("/v1/indexes/animals")).json()
    assert whole.items() >= brief.items()
    assert {"documents": 4, "passages": 4, "version": 1}.items() <= whole.items()
    assert animals not in str(whole)
    assert "there is no index 'x'" in await refused(http.get("/v1/indexes/x"), 404)


async def test_values_that_occur(http):
    async def values(field, **more):
        return (await http.get("/v1/indexes/animals/values", params={"field": field, **more})).json()["values"]

    assert await values("home") == [{"value": "house", "count": 2}, {"value": "nest", "count": 1}]
    assert (await values("tags"))[0] == {"value": "pet", "count": 2}
    assert await values("legs", limit=1) == [{"value": 4, "count": 2}]
    assert {item["value"]: item["count"] for item in await values("wild")} == {True: 2, False: 2}
    assert "'wings'" in await refused(http.get("/v1/indexes/animals/values", params={"field": "wings"}), 422)
    await refused(http.get("/v1/indexes/animals/values", params={"field": "home", "limit": 0}), 422)
    await refused(http.get("/v1/indexes/animals/values"), 422)


async def test_select_gives_ids(http):
    found = (await http.post("/v1/indexes/animals/select", json={"where": {"legs": 4}})).json()
    assert (sorted(found["ids"]), found["coverage"]) == (["cat", "dog"], 1.0)
    assert len((await http.post("/v1/indexes/animals/select", json={"limit": 3})).json()["ids"]) == 3


async def test_a_document_comes_back_whole(http):
    found = (await http.get("/v1/indexes/animals/documents/fish")).json()
    assert found["metadata"] == ANIMALS[3].metadata
    assert found["passages"] == [{"id": "fish#0", "text": ANIMALS[3].text}]
    assert "no document 'horse'" in await refused(http.get("/v1/indexes/animals/documents/horse"), 404)


@pytest.fixture(scope="module")
def odd(tmp_path_factory, tiny_bundle):
    return made(tmp_path_factory.mktemp("odd") / "odd", tiny_bundle, [Document(id_, "", "text") for id_ in ODD])


@pytest.mark.parametrize("id_", ODD)
async def test_an_id_may_hold_anything(odd, id_):
    async with serving(odd) as http:
        answer = await http.get("/v1/indexes/odd/documents", params={"id": id_})
        assert [document["id"] for document in answer.json()["documents"]] == [id_]
        if id_ not in (".", ".."):  # which every client takes for a step in the path
            assert (await http.get("/v1/indexes/odd/documents/" + quote(id_, safe=""))).json()["id"] == id_


async def test_two_indexes_have_names_of_their_own(animals, odd):
    async with serving(f"beasts={animals}", odd) as http:
        assert [index["name"] for index in (await http.get("/v1/indexes")).json()["indexes"]] == ["beasts", "odd"]
        (found,) = (await http.post("/v1/search", json={"query": "cat", "index": "beasts", "k": 1})).json()["results"]
        assert found["hits"][0]["index"] == "beasts"
        both = (await http.post("/v1/search", json={"query": "cat", "k": 15})).json()["results"][0]["hits"]
        assert {hit["index"] for hit in both} == {"beasts", "odd"}


async def test_an_index_that_goes_away_is_told_without_its_place(tmp_path, tiny_bundle, animals):
    gone = made(tmp_path / "gone", tiny_bundle)
    async with serving(gone, animals) as http:
        (tmp_path / "gone").rename(tmp_path / "elsewhere")
        first, second = (await http.get("/v1/indexes")).json()["indexes"]
        assert (first["name"], second["name"], "error" in second) == ("gone", "animals", False)
        assert str(tmp_path) not in str(first) and "log has the reason" in first["error"]
        said = await refused(http.post("/v1/search", json={"query": "x", "index": "gone"}), 503)
        assert str(tmp_path) not in said
        assert (await http.post("/v1/search", json={"query": "x", "index": "animals"})).status_code == 200
        (tmp_path / "elsewhere").rename(tmp_path / "gone")
        assert (await http.post("/v1/search", json={"query": "x", "index": "gone"})).status_code == 200
