"""A small index for the frameworks."""

from __future__ import annotations

import os

import pytest
from animals import ANIMALS

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
