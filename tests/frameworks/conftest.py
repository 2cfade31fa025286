"""A small index for the frameworks."""

from __future__ import annotations

import os

import pytest
from animals import ANIMALS, QUERY
from cross_encoders import made_cross_encoder
from dense_bundles import made_bundle

from colbert_vespa.store import DocumentStore

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when haystack is imported
os.environ["LANGSMITH_TRACING"] = "false"


@pytest.fixture(scope="session")
def animals(tmp_path_factory, minilm_bundle) -> str:
    """A local index."""
    address = str(tmp_path_factory.mktemp("animals") / "index")
    store = DocumentStore(address, minilm_bundle)
    assert store.put(ANIMALS).failed == {}
    store.close()
    return address


@pytest.fixture(scope="session")
def client(animals):
    from query import Client

    with Client(animals) as opened:
        yield opened


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """(a client of an index, its address, the folder of a cross-encoder that has another order than MaxSim)."""
    from query import Client

    folder, words = tmp_path_factory.mktemp("crossed"), " ".join(d.text for d in ANIMALS)
    address, reader = str(folder / "index"), str(made_cross_encoder(folder / "reader", words=words).path)
    store = DocumentStore(address, made_bundle(folder / "bundle", words=words))
    assert store.put(ANIMALS).failed == {}
    store.close()
    with Client(address) as client:
        orders = [[hit.id for hit in client.search(QUERY, 4, rerank_with=one).hits] for one in (None, reader)]
        assert orders[0] != orders[1]
        yield client, address, reader
