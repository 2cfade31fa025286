"""A served Vespa application: deadlines, errors, cancelled queries, counts and values."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from serving import URL, refused
from vespa_bundles import small_bundle

from colbert_vespa.server.access import Access
from colbert_vespa.server.app import create_app
from colbert_vespa.server.door import Door
from colbert_vespa.server.engine import Engine
from colbert_vespa.server.settings import ServedAddress, ServerSettings
from late_interaction.metadata import MetadataSchema
from vespa_app import build_package, default_settings

VESPA = "http://vespa.internal:8080"
HIT = {"relevance": 1.5, "fields": {"id": "a#0", "document_id": "a", "title": "", "text": "hello world", "owner": "red"}}


class Restricted(Door):
    access = Access()

    def admitted(self, request, role):
        return self.access


class Application:
    """Answers queries on order; `bodies` is what was asked, `cancelled` counts queries that were given up."""

    def __init__(self, description):
        self.description = description
        self.bodies, self.answer, self.cancelled = [], {"root": {}}, 0
        self.fault, self.asked, self.go_on = None, asyncio.Event(), asyncio.Event()
        self.go_on.set()

    def opening(self, request):
        return httpx.Response(200, json={"fields": {"description": self.description}})

    async def __call__(self, request):
        self.bodies.append(json.loads(request.content))
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.fault, Exception):
            raise self.fault
        return self.fault or httpx.Response(200, json=self.answer)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vespa")
    bundle = small_bundle(folder / "bundle", onnx=True)
    settings = default_settings(bundle, MetadataSchema.from_json({"owner": "string", "year": "long"}))
    build_package(bundle, settings).write(folder / "package")
    return bundle, (folder / "package" / "colbert-vespa.json").read_text()


@pytest.fixture
async def vespa(package):
    return Application(package[1])


@pytest.fixture
async def http(package, vespa):
    vespa.answer = {"root": {"coverage": {"coverage": 100, "documents": 99}, "fields": {"totalCount": 1}, "children": [HIT]}}
    engine = Engine(
        [ServedAddress(VESPA, "docs")], package[0], ServerSettings(timeout=20.0),
        transport=httpx.MockTransport(vespa), opening=httpx.MockTransport(vespa.opening),
    )  # fmt: skip
    await asyncio.to_thread(engine.warm)
    door = Restricted()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(engine, door)), base_url=URL) as caller:
        caller.door = door
        yield caller
    await engine.close()


async def test_search_asks_vespa_within_the_deadline(http, vespa):
    (found,) = (await http.post("/v1/search", json={"query": "hello", "timeout": 3})).json()["results"]
    assert (found["hits"][0]["id"], found["hits"][0]["index"], found["searched"]) == ("a", "docs", 99)
    assert 2 < float(vespa.bodies[0]["timeout"].removesuffix("s")) <= 3
    assert VESPA not in json.dumps(found)
    await http.post("/v1/search", json={"query": "hello", "timeout": 3}, headers={"x-timeout": "1.5"})
    assert float(vespa.bodies[1]["timeout"].removesuffix("s")) <= 1.5


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (httpx.ConnectError("refused"), 503),
        (httpx.ReadTimeout("slow"), 504),
        (httpx.Response(429, json={"root": {"errors": [{"code": 0, "message": "busy"}]}}), 429),
        (httpx.Response(400, json={"root": {"errors": [{"code": 4, "message": "odd"}]}}), 502),
        (httpx.Response(504, json={"root": {"errors": [{"code": 12, "message": "late"}]}}), 504),
        (httpx.Response(200, text="<html>"), 502),
    ],
)
async def test_what_vespa_does_wrong_has_a_status(http, vespa, fault, status):
    vespa.fault = fault
    said = await refused(http.post("/v1/search", json={"query": "hello", "timeout": 2}), status)
    assert "vespa.internal" not in said


async def test_a_query_is_given_up_at_the_deadline_and_when_the_caller_goes_away(http, vespa):
    vespa.go_on.clear()
    await refused(http.post("/v1/search", json={"query": "hello", "timeout": 1}), 504)
    assert vespa.cancelled == 1
    vespa.asked.clear()
    task = asyncio.create_task(http.post("/v1/search", json={"query": "hello"}))
    await vespa.asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert vespa.cancelled == 2


async def test_counts_and_values_are_asked_of_vespa(http, vespa):
    groups = [{"id": "group:string:red", "value": "red", "fields": {"count()": 3}},
              {"id": "group:string:blue", "value": "blue", "fields": {"count()": 5}}]  # fmt: skip
    vespa.answer = {"root": {"fields": {"totalCount": 8}, "coverage": {"coverage": 100}, "children": [
        {"id": "group:root:0", "children": [{"id": "grouplist:owner", "children": groups}]}]}}  # fmt: skip
    found = (await http.get("/v1/indexes/docs/values", params={"field": "owner"})).json()
    assert found == {"values": [{"value": "blue", "count": 5}, {"value": "red", "count": 3}]}
    assert vespa.bodies[0]["yql"].endswith(" where true | all(group(owner) max(20) order(-count()) each(output(count())))")
    facts = (await http.get("/v1/indexes/docs")).json()
    assert (facts["backend"], facts["passages"], facts["fields"]) == ("vespa", 8, {"owner": "string", "year": "long"})
    groups[:] = [{"id": "group:long:2001", "value": "2001", "fields": {"count()": 1}}]
    assert (await http.get("/v1/indexes/docs/values", params={"field": "year"})).json()["values"] == [
        {"value": 2001, "count": 1}
    ]


async def test_the_filter_of_a_key_is_in_every_query(http, vespa):
    http.door.access = Access("id", "read", None, {"owner": "red"})
    (found,) = (await http.post("/v1/search", json={"query": "hello", "where": {"year": 2001}})).json()["results"]
    assert (found["searched"], found["notes"]) == (None, [])  # Vespa counts what the key does not see
    await http.get("/v1/indexes/docs/documents/a")
    await http.post("/v1/indexes/docs/select", json={})
    await http.get("/v1/indexes/docs/values", params={"field": "year"})
    await http.get("/v1/indexes/docs")
    await http.post("/v1/explain", json={"query": "hello", "id": "a"})
    await http.post("/v1/rerank", json={"query": "hello", "ids": ["a"]})
    assert len(vespa.bodies) == 7
    assert all('owner contains "red"' in body["yql"] for body in vespa.bodies), [body["yql"] for body in vespa.bodies]
