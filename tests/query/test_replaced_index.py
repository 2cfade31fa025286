"""An index of another bundle takes the place of one that a client has open: nothing of the old one is asked any more."""

import dataclasses
import json
import shutil
import threading
from typing import ClassVar

import httpx
import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from late_interaction.bundle import write_manifest
from late_interaction.errors import BundleError, LocalIndexError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.plaid.shards import ShardedIndex, Sharding
from query import Client, ClientSettings
from query.local import LocalSearch
from vespa_app.running import Description
from vespa_app.settings import AppSettings

VECTORS = token_vectors(np.random.default_rng(0), 30)
FORMS = ["plain", "two shards", "three shards"]


class Encoder:
    """In place of the model: whose bundle was asked to encode."""

    asked: ClassVar[list[str]] = []

    def __init__(self, bundle, precision=None, device="auto"):
        self.bundle = bundle

    def encode_queries(self, texts):
        Encoder.asked.append(self.bundle.manifest.source)
        return [VECTORS[0]] * len(texts)


@pytest.fixture(autouse=True)
def _without_models(monkeypatch):
    monkeypatch.setattr("query.core.Encoder", Encoder)
    Encoder.asked = []


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two that differ in their source alone."""
    folder = tmp_path_factory.mktemp("bundles")
    old = fake_bundle(folder / "old")
    shutil.copytree(folder / "old", folder / "new")
    return old, write_manifest(folder / "new", dataclasses.replace(old.manifest, source="new"))


def build(path, bundle, form, word):
    schema = MetadataSchema({word: FieldType.STRING})
    if form == "plain":
        index = LocalIndex.create(path, bundle=bundle, schema=schema, codec="float32")
    else:
        shards = Sharding(2 if form == "two shards" else 3)
        index = ShardedIndex.create(path, bundle=bundle, schema=schema, sharding=shards, storage=Storage("float32"))
    with index.writer() as writer:
        for number, rows in enumerate(VECTORS):
            writer.put(passage(f"d{number}", text=f"thread of {word}", **{word: word}), rows)
        writer.commit()
    if index.sharding:
        index.close()


def replace_by(path, bundle, form, word):
    build(path.parent / "next", bundle, form, word)
    path.rename(path.parent / "before")
    (path.parent / "next").rename(path)
    shutil.rmtree(path.parent / "before")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(before, after, marks=() if "plain" in (before, after) else pytest.mark.slow)
        for before in FORMS
        for after in FORMS
    ],
)
def test_a_local_index(tmp_path, bundles, before, after):
    old, new = bundles
    build(tmp_path / "i", old, before, "red")
    with Client(tmp_path / "i", settings=ClientSettings(timeout=60)) as client:
        for candidates in ("centroid", "bm25", "hybrid"):
            assert client.search("thread red", 30, candidates=candidates).hits[0].metadata == {"red": "red"}
        assert set(Encoder.asked) == {"test"} and client.bundle.sha256 == old.sha256
        Encoder.asked = []
        replace_by(tmp_path / "i", new, after, "blue")
        for candidates in ("centroid", "bm25", "hybrid", "exhaustive"):
            hits = client.search("thread blue", 30, candidates=candidates).hits
            assert {str(hit.metadata) for hit in hits} == {"{'blue': 'blue'}"} and hits[0].text == "thread of blue"
        assert set(Encoder.asked) == {"new"}
        assert client.bundle.sha256 == client.encoder.bundle.sha256 == new.sha256
        assert list(client.schema.fields) == ["blue"]
        assert client.get(["d1"])["d1"][0].metadata == {"blue": "blue"}


def test_it_does_not_come_between_the_encoder_and_the_search(tmp_path, bundles):
    """The index that encodes the query is the one that is searched."""
    old, new = bundles
    build(tmp_path / "i", old, "plain", "red")
    search = LocalSearch(tmp_path / "i")
    still = search.now(1e9)
    assert still.bundle.sha256 == old.sha256
    replace_by(tmp_path / "i", new, "plain", "blue")
    assert still.bundle.sha256 == old.sha256 and list(still.schema.fields) == ["red"]
    assert search.now(1e9).bundle.sha256 == new.sha256


def test_a_bundle_is_never_that_of_another_version(tmp_path, bundles):
    old, new = bundles
    build(tmp_path / "i", old, "plain", "red")
    index = LocalIndex.open(tmp_path / "i")
    replace_by(tmp_path / "i", new, "plain", "blue")
    with pytest.raises(LocalIndexError, match="its bundle has checksum"):
        _ = index.bundle
    index.refresh()
    assert index.bundle.sha256 == new.sha256


def test_shards_that_are_replaced_while_they_are_asked(tmp_path, bundles):
    old, new = bundles
    build(tmp_path / "i", old, "two shards", "red")
    with ShardedIndex.open(tmp_path / "i") as index:
        still = index.pinned()
        replace_by(tmp_path / "i", new, "two shards", "blue")
        with pytest.raises(LocalIndexError, match=r"another bundle|checksum differs"):  # its workers open their shards now
            still.search(VECTORS[0], 5)


class Node:
    def __init__(self, bundle):
        self.settings = AppSettings(dim=16, query_rows=16, codec="float32", candidates=("exhaustive",))
        self.bundle, self.reads, self.down = bundle, 0, False

    def __call__(self, request):
        if request.method == "GET":
            self.reads += 1
            if self.down:
                raise httpx.ConnectError("refused")
            description = Description(self.settings, self.bundle.sha256, None)
            return httpx.Response(200, json={"fields": {"description": json.dumps(description.to_json())}})
        return httpx.Response(200, json={"root": {"coverage": {"coverage": 100, "documents": 0}}})


def test_an_application(bundles, monkeypatch):
    old, new = bundles
    monkeypatch.setattr("vespa_app.running.application.find_bundle", lambda sha256: {b.sha256: b for b in bundles}[sha256])
    node, now = Node(old), [0.0]
    with Client("http://node:8080", transport=httpx.MockTransport(node), clock=lambda: now[0]) as client:
        client.search("x")
        node.bundle = new
        now[0] += 1
        client.search("x")
        assert node.reads == 1 and Encoder.asked == ["test", "test"]
        now[0] += 5
        client.search("x")
        assert node.reads == 2 and Encoder.asked[2:] == ["new"] and client.bundle.sha256 == new.sha256
        node.down = True
        now[0] += 60
        client.search("x")  # the description cannot be read for the moment
        assert Encoder.asked[3:] == ["new"]


def test_an_application_whose_bundle_was_given(bundles):
    old, new = bundles
    node, now = Node(old), [0.0]
    with Client("http://node:8080", old, transport=httpx.MockTransport(node), clock=lambda: now[0]) as client:
        client.search("x")
        node.bundle, now[0] = new, 60.0
        with pytest.raises(BundleError, match="is not the bundle that the application"):
            client.search("x")


def test_threads_that_search_while_it_is_replaced(tmp_path, bundles):
    old, new = bundles
    build(tmp_path / "i", old, "plain", "red")
    wrong, ready = [], threading.Event()
    with Client(tmp_path / "i") as client:

        def search():
            ready.set()
            for _ in range(100):
                try:
                    hits = client.search("thread", 5).hits
                except LocalIndexError:
                    continue
                wrong.extend(hit for hit in hits if len(hit.metadata) != 1)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        ready.wait()
        replace_by(tmp_path / "i", new, "plain", "blue")
        for thread in threads:
            thread.join()
        assert not wrong and client.search("thread", 5).hits[0].metadata == {"blue": "blue"}
