"""Documents put and deleted through the server, one writer at a time."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest
from ready import ready_bundle, unit_rows
from serving import made, refused, serving

from colbert_vespa.server.writing import Writing
from feeder import FeedOptions, feed
from late_interaction.documents import Document
from late_interaction.plaid import open_index

AT = "/v1/indexes/index/documents"
LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
def index(tmp_path, tiny_bundle):
    return made(tmp_path / "index", tiny_bundle)


@pytest.fixture
async def http(index):
    async with serving(index) as caller:
        yield caller


def lines(*documents):
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def outcomes(answer):
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_document_is_put_found_and_deleted(http):
    body = {"title": "Horses", "text": "a horse runs", "metadata": {"legs": 4, "loc": {"lines": [1]}}}
    assert (await http.put(f"{AT}/a%2Fb%25", json=body)).json() == {"id": "a/b%"}
    found = (await http.get(f"{AT}/a%2Fb%25")).json()
    assert {name: found[name] for name in body} == body
    hits = (await http.post("/v1/search", json={"query": "a horse runs", "k": 10})).json()["results"][0]["hits"]
    assert "a/b%" in {hit["id"] for hit in hits}
    assert (await http.delete(f"{AT}/a%2Fb%25")).json() == {"id": "a/b%"}
    assert "no document 'a/b%'" in await refused(http.get(f"{AT}/a%2Fb%25"), 404)
    await refused(http.delete(f"{AT}/a%2Fb%25"), 404)
    assert (await http.delete(AT, params={"id": ["cat", "nowhere", "dog"]})).json() == {"deleted": ["cat", "dog"]}


async def test_what_does_not_fit_is_refused(http):
    assert "'legs'" in await refused(http.put(f"{AT}/x", json={"text": "t", "metadata": {"legs": "four"}}), 422)
    assert "blank" in await refused(http.put(f"{AT}/x", json={"text": " "}), 422)
    assert "body.body" in await refused(http.put(f"{AT}/x", json={"body": "t"}), 422)
    await refused(http.put("/v1/indexes/other/documents/x", json={"text": "t"}), 404)
    await refused(http.get(f"{AT}/x"), 404)


async def test_each_line_has_its_outcome(http):
    body = lines({"id": "a", "text": "one"}, {"id": 7, "text": "two"}, {"id": "b", "text": "x", "metadata": {"legs": "four"}},
                 {"id": "c"}, {"text": "no id"}, {"id": "d", "text": "x", "more": 1}) + b"{\n\xff\n"  # fmt: skip
    found = outcomes(await http.post(AT, content=body, headers=LINES))
    assert [(one["id"], one["status"]) for one in found] == [
        ("a", 200), ("7", 200), ("b", 422), ("c", 422), ("", 422), ("", 422), ("", 422), ("", 422),
    ]  # fmt: skip
    assert "legs" in found[2]["detail"] and "line 5" in found[4]["detail"] and "not UTF-8" in found[7]["detail"]
    assert (await http.get(AT, params={"id": ["a", "7"]})).json()["documents"][1]["text"] == "two"
    assert outcomes(await http.post(AT, content=b"", headers=LINES)) == []
    assert "must be application/x-ndjson" in await refused(
        http.post(AT, content=body, headers={"content-type": "text/plain"}), 415
    )


async def test_a_task_says_how_far_it_is(http):
    body = lines({"id": "a", "text": "one"}, {"id": "c"})
    started = await http.post(AT, params={"wait": "false"}, content=body, headers=LINES)
    assert started.status_code == 202
    await http.app.state.tasks.finish()
    task = (await http.get(f"/v1/tasks/{started.json()['task']}")).json()
    assert (task["state"], task["documents"], task["stored"]) == ("done", 2, 1)
    assert task["failed"] == [{"id": "c", "status": 422, "detail": "the document is blank"}]
    await refused(http.get("/v1/tasks/nothing"), 404)


async def test_a_task_that_fails_or_is_late_says_so(http, monkeypatch):
    async def fail(*args):
        raise RuntimeError("a secret")

    async def wait(*args):
        await asyncio.sleep(60)

    for work, seconds, says in ((fail, None, "has a fault"), (wait, 0.01, "the server stopped")):
        monkeypatch.setattr(http.app.state.writing, "put", work)
        started = await http.post(AT, params={"wait": "false"}, content=lines({"id": "a", "text": "t"}), headers=LINES)
        await http.app.state.tasks.finish(seconds)
        await asyncio.sleep(0)
        task = (await http.get(f"/v1/tasks/{started.json()['task']}")).json()
        assert task["state"] == "failed" and says in task["detail"] and "secret" not in str(task)


async def test_another_writer_is_a_conflict(http, index):
    with open_index(index).writer():
        said = await refused(http.put(f"{AT}/x", json={"text": "t"}), 409)
        assert said.startswith("index is being written by another process or writer")
        await refused(http.delete(f"{AT}/cat"), 409)
        await refused(http.post(AT, content=lines({"id": "x", "text": "t"}), headers=LINES), 409)
        started = (await http.post(AT, params={"wait": "false"}, content=lines({"id": "x", "text": "t"}), headers=LINES)).json()
        await http.app.state.tasks.finish()
        task = (await http.get(f"/v1/tasks/{started['task']}")).json()
        assert (task["state"], task["stored"]) == ("failed", 0) and "being written" in task["detail"]
    assert (await http.put(f"{AT}/x", json={"text": "t"})).status_code == 200


async def test_a_write_that_waits_too_long_says_so_and_is_not_begun(http, index, monkeypatch):
    go_on, work = asyncio.Event(), Writing._fed

    async def late(*args):
        await go_on.wait()
        return await work(*args)

    monkeypatch.setattr(Writing, "_fed", late)
    monkeypatch.setattr("colbert_vespa.server.limits.GRACE_S", 0.0)
    first = asyncio.create_task(http.put(f"{AT}/first", json={"text": "t"}))
    await asyncio.sleep(0.05)
    for waits in (http.put(f"{AT}/late", json={"text": "t"}, headers={"X-Timeout": "0.05"}),
                  http.delete(f"{AT}/cat", headers={"X-Timeout": "0.05"}),
                  http.delete(AT, params={"id": "cat"}, headers={"X-Timeout": "0.05"})):  # fmt: skip
        assert "check whether it was written" in await refused(waits, 504)
    await refused(http.put(f"{AT}/late", json={"text": "t"}, headers={"X-Timeout": "soon"}), 422)
    go_on.set()
    assert (await first).status_code == 200
    assert [(await http.get(f"{AT}/{id_}")).status_code for id_ in ("first", "late", "cat")] == [200, 404, 200]


async def test_what_arrives_while_an_index_is_written_is_one_version(http, index):
    puts = [http.put(f"{AT}/d{n}", json={"text": f"text {n}", "metadata": {"legs": n}}) for n in range(20)]
    answers = await asyncio.gather(
        *puts, http.delete(f"{AT}/cat"), http.put(f"{AT}/bad", json={"text": "t", "metadata": {"x": {}}})
    )
    assert [answer.status_code for answer in answers] == [200] * 22  # nested metadata go to metadata_json
    opened = open_index(index)
    assert opened.documents == 4 + 20 - 1 + 1
    assert opened.version < 8


async def test_a_feed_elsewhere_is_seen_and_no_answer_has_two_versions(http, index, tiny_bundle):
    """A document is moved between two names in one commit after another: each answer has it under one of them."""

    def feed(number):
        made(index, tiny_bundle, [Document(f"moved{number % 2}", "", f"the red fox {number}")])
        made_gone(index, f"moved{(number + 1) % 2}")

    async def ask():
        queries = ["the red fox"] * 4
        answer = await http.post("/v1/search", json={"queries": queries, "k": 20, "candidates": "exhaustive"})
        assert answer.status_code == 200
        return [[(hit["id"], hit["text"]) for hit in result["hits"]] for result in answer.json()["results"]]

    seen = set()
    for number in range(3):
        feeding = asyncio.create_task(asyncio.to_thread(feed, number))
        while not feeding.done():
            results = await ask()
            assert all(result == results[0] for result in results)
            seen.add(str(results[0]))
        await feeding
        assert ("moved" + str(number % 2), f"the red fox {number}") in (await ask())[0]
    assert len(seen) > 1


def made_gone(folder, id_):
    from colbert_vespa.store import DocumentStore

    store = DocumentStore(folder)
    store.delete([id_])
    store.close()


async def test_documents_bring_their_vectors(http):
    rows = [[1.0] + [0.0] * 15, [0.0, 1.0] + [0.0] * 14]
    packed = {"base64": base64.b64encode(np.array(rows, "<f2").tobytes()).decode(), "dtype": "float16", "shape": [2, 16]}
    assert (await http.put(f"{AT}/page", json={"vectors": rows})).json() == {"id": "page"}
    assert (await http.put(f"{AT}/pages", json={"vectors": [packed, packed]})).json() == {"id": "pages"}
    (found,) = outcomes(await http.post(AT, content=lines({"id": "line", "text": "t", "vectors": packed}), headers=LINES))
    assert found["status"] == 200
    hits = (await http.post("/v1/search", json={"rows": rows, "k": 4, "candidates": "exhaustive"})).json()["results"][0]["hits"]
    assert {hit["passage_id"] for hit in hits} == {"page#0", "pages#0", "pages#1", "line#0"}
    assert "[t, 16] for this bundle" in await refused(http.put(f"{AT}/x", json={"vectors": [[1.0] * 3]}), 422)
    (wrong,) = outcomes(await http.post(AT, content=lines({"id": "x", "vectors": [[1.0, 2.0]]}), headers=LINES))
    assert wrong["status"] == 422 and "[t, 16] for this bundle" in wrong["detail"]


async def test_an_index_without_a_model_takes_rows_alone(tmp_path):
    bundle = ready_bundle(tmp_path / "bundle")
    document = Document("page", text="a red page", vectors=unit_rows(3))
    feed([document], FeedOptions(to=tmp_path / "index", bundle=bundle, journal=tmp_path / "journal"))
    async with serving(str(tmp_path / "index")) as http:
        await http.put(f"{AT}/two", json={"vectors": unit_rows(2, 1).tolist()})
        rows = unit_rows(2, 1).tolist()
        found = (await http.post("/v1/search", json={"rows": rows, "candidates": "exhaustive"})).json()["results"][0]["hits"]
        assert [hit["id"] for hit in found] == ["two", "page"]
        words = (await http.post("/v1/search", json={"query": "red", "candidates": "bm25"})).json()["results"][0]["hits"]
        assert [(hit["id"], list(hit["stages"])) for hit in words] == [("page", ["bm25"])]
        for path, body in (("search", {"query": "red"}), ("encode", {"queries": ["red"]}), ("encode", {"documents": ["red"]})):
            assert "has no model" in await refused(http.post(f"/v1/{path}", json=body), 422)
