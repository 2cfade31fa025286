"""One hit a document on a real node, as on a local index of the same passages."""

from __future__ import annotations

import dataclasses

import httpx
import pytest

from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.documents import Passage
from late_interaction.plaid import LocalIndex
from query import Client
from vespa_app.running import Application
from vespa_app.running.layouts import document_path

pytestmark = pytest.mark.live

PARTS = 4  # passages of a document
COUNT = 120
MODULE = "of the grouping test"


@pytest.fixture(scope="module")
def both(world, tmp_path_factory):
    """Documents of four passages each, in the shared application and in a local index."""
    bare = [
        dataclasses.replace(d, id=f"grouped {n // PARTS}", metadata={"module": MODULE})
        for n, d in enumerate(world.documents[:COUNT])
    ]
    passages = [Passage.of(document, n % PARTS) for n, document in enumerate(bare)]
    vectors = [world.vectors[d.id] for d in world.documents[:COUNT]]
    application = Application.read(world.url)
    target = VespaTarget(application, world.bundle)
    target.put([EncodedDocument(d, (p,), (v,)) for d, p, v in zip(bare, passages, vectors, strict=True)])
    assert all(outcome.failure is None for outcome in target.settled(wait=True))
    target.close()
    path = tmp_path_factory.mktemp("grouped") / "index"
    index = LocalIndex.create(path, bundle=world.bundle, schema=application.settings.metadata, codec="float32")
    with index.writer() as writer:
        for passage, rows in zip(passages, vectors, strict=True):
            writer.put(passage, rows)
        writer.commit()
    yield world.vespa, Client(str(path))
    for passage in passages:
        gone = httpx.delete(world.url + document_path(application.settings, passage.id, {}), timeout=30)
        gone.raise_for_status()


@pytest.mark.parametrize("candidates", ["centroid", "exhaustive", "bm25", "hybrid"])
def test_a_document_comes_once_on_both_backends(both, candidates):
    vespa, local = both
    for query in ("parse command line options", "wait for a thread to finish"):
        asked = {"where": {"module": MODULE}, "candidates": candidates, "rerank": COUNT}
        found = vespa.search(query, 10, group=True, **asked).hits
        assert len({hit.id for hit in found}) == 10
        best = {}
        for hit in vespa.search(query, COUNT, **asked).hits:
            best.setdefault(hit.id, hit.passage_id)
        assert [(hit.id, hit.passage_id) for hit in found] == list(best.items())[:10]
        assert [hit.rank for hit in found] == list(range(1, 11))
        if candidates in ("centroid", "exhaustive"):
            mine = local.search(query, 10, group=True, **asked).hits
            assert {hit.id: hit.score for hit in mine} == pytest.approx({hit.id: hit.score for hit in found}, abs=0.02)
