"""Compressed codecs with every candidate strategy on a real node, in the shared application."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from vespa_bundles import WITHOUT_DENSE

from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.documents import Passage
from late_interaction.maxsim import maxsim
from late_interaction.metrics import overlap_at_k
from query import Client
from vespa_app.codecs import CODECS
from vespa_app.running import Application

pytestmark = pytest.mark.live

COUNT = 60  # documents
QUERIES = ("parse command line options", "wait for a thread to finish")
WAYS = [("residual", candidates) for candidates in WITHOUT_DENSE] + [("signs", "token"), ("signs", "exhaustive")]


@pytest.fixture(scope="module")
def indexes(world):
    found = {}
    for name in ("residual", "signs"):
        address = f"{world.url}#{name}"
        application = Application.read(address)
        target = VespaTarget(application, world.bundle)
        items = [EncodedDocument(d, (Passage.of(d),), (world.vectors[d.id],)) for d in world.documents[:COUNT]]
        target.put(items)
        assert all(outcome.failure is None for outcome in target.settled(wait=True))
        target.close()
        codec, books = CODECS[application.settings.codec], application.books(world.bundle)
        stored = {i.document.id: codec.decode(codec.encode(i.vectors[0], books), books) for i in items}
        found[name] = SimpleNamespace(stored=stored, retriever=Client(address, world.bundle))
    yield found
    for index in found.values():
        index.retriever.close()


@pytest.mark.parametrize(("name", "candidates"), WAYS)
def test_scores_are_max_sim_of_the_decoded_vectors(world, indexes, name, candidates):
    index = indexes[name]
    for query in QUERIES:
        Q = world.encoder.encode_queries([query])[0]
        truth = {id_: maxsim(Q, D) for id_, D in index.stored.items()}
        hits = index.retriever.search(query, 10, candidates=candidates, rerank=COUNT).hits
        assert hits
        for hit in hits:
            assert hit.stages["maxsim"] == pytest.approx(truth[hit.id], abs=1e-4)
        if candidates not in ("bm25", "hybrid"):  # which find, or order, by words
            best = sorted(truth, key=lambda id_: -truth[id_])
            assert overlap_at_k([hit.id for hit in hits], best, 10) >= 0.9


@pytest.mark.parametrize("name", ["residual", "signs"])
def test_vectors_that_are_read_back_are_the_decoded_ones(indexes, name):
    index = indexes[name]
    found = index.retriever.vectors([Passage.id_of(id_, 0) for id_ in index.stored])
    assert len(found) == COUNT
    for id_, D in index.stored.items():
        np.testing.assert_allclose(found[Passage.id_of(id_, 0)], D, atol=1e-5)
