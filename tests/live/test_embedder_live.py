"""An index whose vectors Vespa's colbert-embedder makes, on a real node."""

from __future__ import annotations

import dataclasses

import pytest

from feeder import FeedOptions, start_feed
from late_interaction.errors import UsageError
from late_interaction.metrics import overlap_at_k
from query import Client
from vespa_app import build_package
from vespa_app.deploying import deploy
from vespa_app.running import Application

pytestmark = [pytest.mark.live, pytest.mark.slow]  # a deployment of its own

QUERIES = ("parse command line options", "wait for a thread to finish", "write an object as JSON text")
COUNT = 60  # documents


@pytest.fixture(scope="module")
def embedded(world, tmp_path_factory):
    """The shared application with one more index, and without it again at the end."""
    folder = tmp_path_factory.mktemp("embedded")
    own = {"encoding": "embedder", "candidates": ["exhaustive", "bm25"]}
    settings = dataclasses.replace(world.settings, indexes={**world.settings.indexes, "embedded": own})
    package = build_package(world.bundle, settings).write(folder / "package")
    deploy(package, world.config_url, query_url=world.url)
    address = f"{world.url}#embedded"
    options = FeedOptions(to=address, bundle=world.bundle, encoder=world.encoder, journal=folder / "journal")
    with start_feed([world.documents[:COUNT]], options) as run:
        assert run.go().acknowledged == COUNT
    retriever = Client(address, world.bundle.path)
    yield retriever
    retriever.close()
    deploy(world.package, world.config_url, query_url=world.url, allow=("schema-removal",))


def test_vespa_makes_vectors_of_documents_and_queries(world, embedded):
    """Nearly the same order as with the client's vectors; where the rules differ, the description says so."""
    wanted = {d.id for d in world.documents[:COUNT]}
    overlaps = []
    for query in QUERIES:
        passages = [
            h.id for h in world.vespa.search(query, len(world.documents), candidates="exhaustive").hits if h.id in wanted
        ]
        overlaps.append(overlap_at_k([h.id for h in embedded.search(query, 10).hits], passages, 10))
    assert sum(overlaps) / len(overlaps) >= 0.6
    assert Application.read(f"{world.url}#embedded").description.embedder_differences
    with pytest.raises(UsageError, match="give the query as text"):
        embedded.search(world.encoder.encode_queries([QUERIES[0]])[0])
