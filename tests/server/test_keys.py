"""Keys: who may come in, how often, and what a key may not see does not exist for it."""

from __future__ import annotations

import json

import pytest
from serving import made, refused, serving

from colbert_vespa.server import keys as keys_module
from colbert_vespa.server.door import KeyedDoor
from colbert_vespa.server.keys import KeyFile
from late_interaction.documents import Document
from late_interaction.errors import UsageError

DOCUMENTS = [
    Document(f"{owner}{n}", f"{owner} {n}", f"the {owner} fox number {n}", {"owner": owner, "colour": f"{owner}-colour"})
    for owner in ("red", "blue") for n in range(3)
]  # fmt: skip
AT = "/v1/indexes/shared/documents"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json", lambda: 5.0)


@pytest.fixture
def index(tmp_path, tiny_bundle):
    return made(tmp_path / "shared", tiny_bundle, DOCUMENTS)


def as_(token):
    return {"authorization": f"Bearer {token}"}


async def test_only_who_has_a_key_comes_in(file, animals, monkeypatch):
    key, token = file.make("reader", "read")
    assert token not in file.path.read_text() and file.path.stat().st_mode & 0o777 == 0o600
    compared = []
    compare = keys_module.hmac.compare_digest
    monkeypatch.setattr(keys_module.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or compare(a, b))
    async with serving(animals, door=KeyedDoor(file)) as http:
        assert (await http.get("/v1/indexes", headers=as_(token))).status_code == 200
        wrong = [{}, as_("x"), as_(""), as_(token[:-1] + "_"), as_("cv_000000000000_" + token[16:]), {"authorization": token},
                 as_(f"{token} "), {"authorization": f"Basic {token}"}]  # fmt: skip
        said = {await refused(http.get("/v1/indexes", headers=one), 401) for one in wrong[:5] + wrong[7:]}
        assert len(said) == 1 and token not in said.pop()
        assert compared and set(compared) == {(64, 64)}
        for path in ("/health", "/openapi.json"):
            assert (await http.get(path)).status_code == 200
        for method, path in (
            ("POST", "/v1/search"),
            ("GET", "/v1/indexes/animals"),
            ("GET", "/v1/indexes/animals/documents/cat"),
        ):
            await refused(http.request(method, path, json={"query": "x"}), 401)
        file.revoke(key.id)
        await refused(http.get("/v1/indexes", headers=as_(token)), 401)


async def test_each_role_may_do_what_those_before_it_may(file, index):
    tokens = {role: file.make(role, role)[1] for role in ("read", "write", "admin")}
    async with serving(index, door=KeyedDoor(file)) as http:
        put = {"text": "t"}
        assert "role write" in await refused(http.put(f"{AT}/x", json=put, headers=as_(tokens["read"])), 403)
        await refused(http.delete(f"{AT}/red0", headers=as_(tokens["read"])), 403)
        await refused(http.post(AT, content=b"", headers={**as_(tokens["read"]), "content-type": "application/x-ndjson"}), 403)
        for role in ("write", "admin"):
            assert (await http.put(f"{AT}/x", json=put, headers=as_(tokens[role]))).status_code == 200
        assert (await http.get(f"{AT}/x", headers=as_(tokens["read"]))).status_code == 200


async def test_a_key_asks_as_often_as_its_rate(file, animals):
    clock = Clock()
    slow, other = file.make("slow", "read", rate=2)[1], file.make("other", "read")[1]
    async with serving(animals, door=KeyedDoor(file, clock)) as http:

        async def asked(token):
            return await http.get("/v1/indexes", headers=as_(token))

        assert [(await asked(slow)).status_code for _ in range(3)] == [200, 200, 429]
        answer = await asked(slow)
        assert answer.headers["retry-after"] == "1" and "2 requests per second" in answer.json()["detail"]
        assert (await asked(other)).status_code == 200
        clock.now += 0.5
        assert [(await asked(slow)).status_code for _ in range(2)] == [200, 429]
        clock.now += 100
        assert [(await asked(slow)).status_code for _ in range(3)] == [200, 200, 429]


async def test_an_index_that_a_key_may_not_see_does_not_exist(file, animals, index):
    token = file.make("one", "write", indexes=["shared"])[1]
    async with serving(animals, index, door=KeyedDoor(file)) as http:
        http.headers.update(as_(token))
        assert [one["name"] for one in (await http.get("/v1/indexes")).json()["indexes"]] == ["shared"]
        results = (await http.post("/v1/search", json={"query": "cat", "k": 50})).json()["results"]
        assert {hit["index"] for hit in results[0]["hits"]} == {"shared"}
        calls = [
            ("GET", "/v1/indexes/animals", None), ("GET", "/v1/indexes/animals/values?field=home", None),
            ("GET", "/v1/indexes/animals/documents/cat", None), ("POST", "/v1/indexes/animals/select", {}),
            ("PUT", "/v1/indexes/animals/documents/x", {"text": "t"}), ("DELETE", "/v1/indexes/animals/documents/cat", None),
            ("POST", "/v1/search", {"query": "x", "index": "animals"}),
            ("POST", "/v1/encode", {"queries": ["x"], "index": "animals"}),
        ]  # fmt: skip
        for method, path, body in calls:
            of_it = await refused(http.request(method, path, json=body), 404)
            of_none = await refused(http.request(method, path.replace("animals", "nowhere"), json=json.loads(
                json.dumps(body).replace("animals", "nowhere"))), 404)  # fmt: skip
            assert of_it.replace("animals", "nowhere") == of_none


async def test_documents_that_a_key_may_not_see_do_not_exist(file, index):
    token = file.make("red", "read", where={"owner": "red"})[1]
    async with serving(index, door=KeyedDoor(file)) as http:
        http.headers.update(as_(token))

        async def post(path, **body):
            answer = await http.post(f"/v1/{path}", json=body)
            assert answer.status_code == 200, answer.text
            assert "blue" not in answer.text, path
            return answer.json()

        for candidates in ("auto", "bm25", "hybrid", "exhaustive"):
            found = await post("search", query="the fox number", k=50, candidates=candidates, explain=True)
            assert {hit["id"] for hit in found["results"][0]["hits"]} == {"red0", "red1", "red2"}
            assert found["results"][0]["matched"] in (None, 3)
        await post("search", query="fox", where={"owner": {"$ne": "red"}})
        await post("search", query="fox", where={"$not": {"owner": "red"}})
        await post("search", query="fox", ids=["blue0", "blue1"])
        assert (await post("rerank", query="fox", ids=["blue0"]))["hits"] == []
        assert (await post("explain", query="fox", id="blue0"))["results"][0]["hits"] == []
        assert sorted((await post("indexes/shared/select"))["ids"]) == ["red0", "red1", "red2"]
        facts = (await http.get("/v1/indexes/shared")).json()
        assert (facts["documents"], facts["passages"]) == (3, 3)
        assert not {"token_vectors", "bytes", "version", "segments", "drift", "centroids"} & set(facts)
        values = await http.get("/v1/indexes/shared/values?field=colour")
        assert values.json()["values"] == [{"value": "red-colour", "count": 3}]
        of_hidden = await refused(http.get(f"{AT}/blue0"), 404)
        assert of_hidden.replace("blue0", "none0") == await refused(http.get(f"{AT}/none0"), 404)
        assert (await http.get(AT, params={"id": ["blue0", "red0"]})).json()["documents"][0]["id"] == "red0"


async def test_a_key_with_a_filter_writes_what_it_may_see(file, index):
    red, all_ = file.make("red", "write", where={"owner": "red"})[1], file.make("all", "admin")[1]
    async with serving(index, door=KeyedDoor(file)) as http:
        mine, theirs = {"text": "t", "metadata": {"owner": "red"}}, {"text": "t", "metadata": {"owner": "blue"}}
        assert (await http.put(f"{AT}/red9", json=mine, headers=as_(red))).status_code == 200
        for id_, body in (("red8", theirs), ("red8", {"text": "t"}), ("blue0", mine), ("red0", theirs)):
            said = await refused(http.put(f"{AT}/{id_}", json=body, headers=as_(red)), 403)
            assert said == f"this key may not write document {id_!r} so"
        lines = b"".join(json.dumps({"id": id_, **body}).encode() + b"\n" for id_, body in (("a", mine), ("b", theirs)))
        answer = await http.post(AT, content=lines, headers={**as_(red), "content-type": "application/x-ndjson"})
        assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [200, 403]
        hidden = await refused(http.delete(f"{AT}/blue0", headers=as_(red)), 404)
        assert hidden.replace("blue0", "none0") == await refused(http.delete(f"{AT}/none0", headers=as_(red)), 404)
        assert (await http.delete(f"{AT}/red0", headers=as_(red))).status_code == 200
        assert (await http.get(f"{AT}/blue0", headers=as_(all_))).json()["metadata"]["owner"] == "blue"
        started = (await http.post(AT, params={"wait": "false"}, content=lines,
                                   headers={**as_(all_), "content-type": "application/x-ndjson"})).json()  # fmt: skip
        await http.app.state.tasks.finish()
        await refused(http.get(f"/v1/tasks/{started['task']}", headers=as_(red)), 404)
        assert (await http.get(f"/v1/tasks/{started['task']}", headers=as_(all_))).json()["stored"] == 2


async def test_a_filter_that_does_not_fit_an_index_hides_it(file, animals):
    token = file.make("red", "read", where={"owner": "red"})[1]
    async with serving(animals, door=KeyedDoor(file)) as http:
        http.headers.update(as_(token))
        assert (await http.get("/v1/indexes")).json() == {"indexes": []}
        assert "owner" not in await refused(http.post("/v1/search", json={"query": "x"}), 404)
        assert "owner" not in await refused(http.get("/v1/indexes/animals/documents/cat"), 404)


async def test_without_keys_only_this_machine_comes_in(animals):
    async with serving(animals, cors=("https://friend.example",)) as http:
        for host in ("127.0.0.1:8000", "localhost", "[::1]:8000"):
            assert (await http.get("/v1/indexes", headers={"host": host})).status_code == 200
        for host in ("evil.example", "10.0.0.1:8000", "", "127.0.0.1.evil.example", "[::1"):
            await refused(http.get("/v1/indexes", headers={"host": host}), 421)
        for origin, status in (
            ("http://evil.example", 403),
            ("null", 403),
            ("http://127.0.0.1", 200),
            ("https://friend.example", 200),
        ):
            assert (await http.get("/v1/indexes", headers={"origin": origin})).status_code == status


def test_keys_at_the_command_line(cli, tmp_path, animals):
    file = str(tmp_path / "keys.json")
    made = json.loads(cli("serve", "keys", "make", "--keys", file, "--name", "app", "--where", '{"a": 1}', "--json").stdout)
    listed = json.loads(cli("serve", "keys", "list", "--keys", file, "--json").stdout)["keys"]
    assert [(key["id"], key["name"], key["role"], key["where"], key["revoked"]) for key in listed] == [
        (made["id"], "app", "read", {"a": 1}, False)
    ]
    assert made["key"] not in cli("serve", "keys", "list", "--keys", file).stdout
    cli("serve", "keys", "revoke", made["id"], "--keys", file)
    assert "revoked before" in cli("serve", "keys", "revoke", made["id"], "--keys", file, code=2).stderr
    assert (
        "role 'owner' is unknown"
        in cli("serve", "keys", "make", "--keys", file, "--name", "x", "--role", "owner", code=2).stderr
    )
    said = cli("serve", animals, "--host", "0.0.0.0", code=2).stderr
    assert said.count("\n") == 1 and "there are no keys" in said
    assert "No such file" in cli("serve", animals, "--keys", str(tmp_path / "none"), code=2).stderr


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": "x"}', '{"format": "colbert-vespa keys", "keys": [{"id": 1}]}', "[" * 100_000, "\xff"]
)
def test_a_file_that_is_none_of_keys_is_told(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"keys\.json"):
        KeyedDoor(KeyFile(path))


async def test_a_file_that_is_damaged_later_lets_in_whom_it_did(file, animals):
    token = file.make("reader", "read")[1]
    async with serving(animals, door=KeyedDoor(file)) as http:
        file.path.write_text("{")
        assert (await http.get("/v1/indexes", headers=as_(token))).status_code == 200
