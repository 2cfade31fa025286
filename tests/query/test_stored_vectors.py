"""`Client.vectors` of a Vespa application: what is asked, and rows out of what is answered."""

import json

import httpx
import numpy as np
import pytest

from late_interaction.errors import UsageError
from query import Client
from query.vespa_request import vectors_request
from vespa_app.codecs import CODECS, VECTORS, bundle_codebooks
from vespa_app.running import Description
from vespa_app.settings import AppSettings


class Node:
    """Has the passages of `stored`, by id."""

    def __init__(self, description, stored):
        self.description, self.stored, self.bodies = description, stored, []

    def __call__(self, request):
        if request.method == "GET":
            return httpx.Response(200, json={"fields": {"description": json.dumps(self.description.to_json())}})
        body = json.loads(request.content)
        self.bodies.append(body)
        found = [id_ for id_ in self.stored if f'"{id_}"' in body["yql"]]
        children = [{"relevance": 0.0, "fields": {"id": id_, "document_id": id_[:-2], **self.stored[id_]}} for id_ in found]
        return httpx.Response(200, json={"root": {"coverage": {"coverage": 100}, "children": children}})


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "binary"])
def test_rows_as_the_codec_decodes_them(tiny_bundle, codec):
    rng = np.random.default_rng(0)
    settings = AppSettings(dim=16, query_rows=16, codec=codec, candidates=("exhaustive",))
    books = bundle_codebooks(tiny_bundle)
    made = {f"d{n}#0": rng.standard_normal((n + 1, 16)).astype(np.float32) for n in range(150)}
    stored = {id_: {VECTORS: CODECS[codec].encode(D, books)[VECTORS]} for id_, D in made.items()}
    node = Node(Description(settings, tiny_bundle.sha256, None), stored)
    with Client("http://node:8080", tiny_bundle, transport=httpx.MockTransport(node)) as client:
        found = client.vectors([*made, "nobody#0"])
    assert list(found) == list(made)
    for id_ in made:
        np.testing.assert_array_equal(found[id_], CODECS[codec].decode(stored[id_], books))
    assert len(node.bodies) == 2  # a hundred at a time
    assert node.bodies[0]["presentation.summary"] == "passage_vectors" and node.bodies[0]["ranking.profile"] == "unranked"


@pytest.mark.parametrize("change", [{"layout": "chunks"}, {"mode": "streaming"}])
def test_indexes_that_cannot_give_them(change):
    settings = AppSettings(dim=16, query_rows=16, candidates=("exhaustive",), **change)
    with pytest.raises(UsageError, match="stored vectors can be read only with layout passages"):
        vectors_request(settings, ["a#0"])


def test_ids_are_escaped():
    body = vectors_request(AppSettings(dim=16, query_rows=16, candidates=("exhaustive",)), ['a"#0', "b\\#0"]).body(["passage"])
    assert body["yql"] == 'select * from passage where id in ("a\\"#0", "b\\\\#0")'
    assert body["hits"] == 2


@pytest.mark.parametrize("filled", [0, 1])
def test_candidates_without_rows_are_left_out_of_scores_at_the_client(tiny_bundle, filled):
    """A passage of skipped words alone has no rows; all candidates may be such."""
    settings = AppSettings(dim=16, query_rows=16, codec="float32", candidates=("token",))
    rows = CODECS["float32"].encode(np.eye(16, dtype=np.float32)[:1], bundle_codebooks(tiny_bundle))[VECTORS]
    stored = {"a#0": {VECTORS: rows if filled else {"blocks": {}}}, "b#0": {VECTORS: {"blocks": {}}}}

    def answer(request):
        if request.method == "GET":
            return Node(Description(settings, tiny_bundle.sha256, None), {})(request)
        children = [{"relevance": None, "fields": {"id": i, "document_id": i[:1], **f}} for i, f in stored.items()]
        return httpx.Response(200, json={"root": {"coverage": {"coverage": 100}, "children": children}})

    with Client("http://node:8080", tiny_bundle, transport=httpx.MockTransport(answer)) as client:
        result = client.search(np.eye(16, dtype=np.float32)[:1], scored="client")
    assert [hit.passage_id for hit in result.hits] == ["a#0"][:filled]
