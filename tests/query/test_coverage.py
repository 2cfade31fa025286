"""What part of an index an answer is of: data on every answer, and an error where a full one is required; on both backends."""

import asyncio
import json
import pickle

import httpx
import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from late_interaction.errors import IncompleteAnswer
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding
from query import AsyncClient, Client, ClientSettings
from query.types import ById, Ids
from query.vespa_answer import coverage_of
from vespa_app.codecs import CODECS
from vespa_app.running import Description
from vespa_app.settings import AppSettings

VECTORS_OF = token_vectors(np.random.default_rng(0), 40)
ROWS = VECTORS_OF[0]
IDS = [f"d{n}" for n in range(40)]
CALLS = {
    "search": lambda client: client.search(ROWS, 40),
    "score": lambda client: client.score(ROWS, [f"{id_}#0" for id_ in IDS]),
    "vectors": lambda client: client.vectors([f"{id_}#0" for id_ in IDS]),
    "get": lambda client: client.get(IDS),
    "select": lambda client: client.select(),
}
REQUIRED = ClientSettings(require_full=True, timeout=60)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture(scope="module")
def half(tmp_path_factory, bundle):
    """Two shards, of which one is damaged."""
    path = tmp_path_factory.mktemp("shards") / "i"
    form = {"sharding": Sharding(2), "storage": Storage("float32")}
    with ShardedIndex.create(path, bundle=bundle, schema=MetadataSchema({}), **form) as index, index.writer() as writer:
        for id_, rows in zip(IDS, VECTORS_OF, strict=True):
            writer.put(passage(id_), rows)
        writer.commit()
    (file,) = (path / "shard-1/segments").glob("*/offsets.npy")
    file.write_bytes(file.read_bytes()[:-8])
    return path


class Node:
    """Has the even documents; the odd ones are on a node that is lost."""

    def __init__(self, bundle, said):
        settings = AppSettings(dim=16, query_rows=16, codec="float32", candidates=("exhaustive",))
        self.description, self.said = Description(settings, bundle.sha256, None), said

    def __call__(self, request):
        if request.method == "GET":
            return httpx.Response(200, json={"fields": {"description": json.dumps(self.description.to_json())}})
        children = [
            {
                "relevance": 1.0,
                "fields": {"id": f"{id_}#0", "document_id": id_, **CODECS["float32"].encode(rows)},
            }
            for id_, rows in list(zip(IDS, VECTORS_OF, strict=True))[::2]
        ]
        root = {"coverage": self.said, "children": children, "fields": {"totalCount": len(children)}}
        return httpx.Response(200, json={"root": root})


SAID = [
    {"coverage": 50, "documents": 20, "full": False},
    {"coverage": 50, "documents": 20, "degraded": {"timeout": True}},
    {"coverage": 100, "documents": 39_999, "full": False},  # whole percents
]


@pytest.mark.parametrize("what", CALLS)
def test_a_local_index(half, what):
    with Client(half, settings=ClientSettings(timeout=60)) as client:
        found = CALLS[what](client)
    assert not found.full and 0.2 < found.coverage < 0.8 and "shard-1" in found.degraded[0]
    assert 0 < len(found.hits if what == "search" else found) < 40
    with pytest.raises(IncompleteAnswer, match="shard-1"):
        found.check_full()
    with Client(half, settings=REQUIRED) as client, pytest.raises(IncompleteAnswer, match="shard-1"):
        CALLS[what](client)


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("what", CALLS)
def test_vespa(bundle, what, said):
    transport = httpx.MockTransport(Node(bundle, said))
    with Client("http://node:8080", bundle, transport=transport) as client:
        found = CALLS[what](client)
    assert not found.full and found.coverage == said["coverage"] / 100 and found.degraded
    with (
        Client("http://node:8080", bundle, settings=REQUIRED, transport=transport) as client,
        pytest.raises(IncompleteAnswer, match="of the documents"),
    ):
        CALLS[what](client)


@pytest.mark.parametrize("what", CALLS)
def test_async(bundle, half, what):
    async def ask(settings):
        node = httpx.MockTransport(Node(bundle, SAID[0]))
        remote = AsyncClient("http://node:8080", bundle, settings=settings, transport=node, opening=node)
        async with remote, AsyncClient(half, settings=settings) as local:
            return [await CALLS[what](client) for client in (remote, local)]

    remote, local = asyncio.run(ask(ClientSettings(timeout=60)))
    assert (remote.full, remote.coverage) == (False, 0.5)
    assert not local.full and local.coverage < 0.8
    with pytest.raises(IncompleteAnswer):
        asyncio.run(ask(REQUIRED))


@pytest.mark.parametrize("what", CALLS)
def test_fewer_documents_than_expected(bundle, what):
    settings = ClientSettings(expected={"passage": 40})
    node = httpx.MockTransport(Node(bundle, {"coverage": 100, "documents": 20, "full": True}))
    with Client("http://node:8080", bundle, settings=settings, transport=node) as client:
        found = CALLS[what](client)
    assert (found.full, found.coverage) == (False, 0.5)


def test_what_is_got_is_still_a_dict_and_a_tuple(bundle):
    node = httpx.MockTransport(Node(bundle, {"coverage": 100, "documents": 20, "full": True}))
    with Client("http://node:8080", bundle, transport=node) as client:
        found = client.get(IDS)
        assert found.full and list(found) == IDS[::2]
        assert client.get([]).full and client.score(ROWS, []) == {} and client.vectors([]) == {}
        assert client.select() == tuple(IDS[::2])
    for answer in (ById({"a": 1}, 0.5, ["why"]), Ids(["a"], 0.5, ["why"])):
        copy = pickle.loads(pickle.dumps(answer))
        assert copy == answer and (copy.coverage, copy.degraded) == (0.5, ("why",))


def test_whole_percents_hide_no_lost_document():
    coverage = coverage_of({"coverage": {"coverage": 100, "documents": 9_999, "full": False}}, None)
    assert coverage.share == 1.0 and coverage.degraded == ("some nodes did not answer",)
