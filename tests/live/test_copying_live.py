"""Copies between a local index, indexes of the shared application on a real node, and backups."""

from __future__ import annotations

import dataclasses

import httpx
import numpy as np
import pytest

from feeder.copying import CopyOptions, backup_index, copy_index, restore_index
from feeder.copying.vespa import VespaSource
from late_interaction.documents import Passage
from late_interaction.plaid import LocalIndex
from query import Client
from vespa_app.codecs import CODECS
from vespa_app.running import Application

pytestmark = pytest.mark.live

QUERIES = ("parse command line options", "wait for a thread to finish", "write an object as JSON text")


@pytest.fixture
def emptied(world, tmp_path, monkeypatch):
    """Addresses of further indexes of the application, empty, and left so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    used = []

    def wipe(name):
        everything = f"{world.url}/document/v1/colbert/{name}/docid?selection=true&cluster=content"
        httpx.delete(everything, timeout=60).raise_for_status()

    def address(name):
        wipe(name)
        used.append(name)
        return f"{world.url}#{name}"

    address.wipe = wipe
    yield address
    for name in used:
        wipe(name)


@pytest.fixture
def split(world, tmp_path):
    """A local index of float32 with three passages a document, one of them with ids as nobody should choose them."""
    path = tmp_path / "split"
    schema = LocalIndex.open(world.index).schema
    LocalIndex.create(path, bundle=world.bundle, schema=schema, codec="float32")
    with LocalIndex.open(path).writer() as writer:
        for place, document in enumerate(world.documents[:90]):
            id_ = document.id if place else 'a/b?c=d#0 "it\'s" ünï ☃ *#1'
            for n in range(3):
                source = world.documents[(place + n) % 90]
                passage = Passage(Passage.id_of(id_, n), id_, document.title, source.text, schema.check(document.metadata))
                writer.put(dataclasses.replace(passage, digest="ab" * 16 + "-3" if place % 2 else ""), world.vectors[source.id])
        writer.commit()
    return path


def contents(path):
    index = LocalIndex.open(path)
    return {passage.id: (passage, index.vectors(passage.id)) for passage in index.iter_passages()}


def hits(address, query, k=20, **options):
    with Client(address) as client:
        return client.search(query, k, candidates="exhaustive", **options).hits


def by_passage(hits):
    return {(hit.passage_id, hit.text, repr(sorted(hit.metadata.items()))): hit.score for hit in hits}


def test_an_index_is_pushed_found_as_before_and_pulled_back(world, emptied, tmp_path):
    """Residual codes of one codebook on both sides."""
    address, count = emptied("residual"), len(world.documents)
    pushed = copy_index(str(world.index), address)
    assert (pushed.documents, pushed.passages, pushed.notes) == (count, count, ())
    for query in QUERIES:
        here, there = hits(str(world.index), query), hits(address, query)
        assert {hit.id: hit.score for hit in there}.items() == {
            hit.id: pytest.approx(hit.score, abs=0.02) for hit in here
        }.items()
        assert [hit.metadata for hit in here[:1]] == [next(h.metadata for h in there if h.id == here[0].id)]
    copy_index(address, str(tmp_path / "back"), CopyOptions(bundle=world.bundle))
    wanted, back = contents(world.index), contents(tmp_path / "back")
    assert {id_: passage for id_, (passage, _) in back.items()} == {id_: passage for id_, (passage, _) in wanted.items()}
    assert {p.digest for p, _ in back.values()} == {p.digest for p, _ in wanted.values()}
    cosines = np.concatenate([(back[id_][1] * vectors).sum(1) for id_, (_, vectors) in wanted.items()])
    assert cosines.mean() > 0.9995


@pytest.mark.parametrize("name", ["chunked", "signs"])
def test_documents_of_several_passages_go_there_and_come_back(world, emptied, split, tmp_path, name):
    address = emptied(name)
    copy_index(str(split), address)
    settings = Application.read(address).settings
    copy_index(address, str(tmp_path / "back"), CopyOptions(bundle=world.bundle))
    wanted, back = contents(split), contents(tmp_path / "back")
    assert {id_: passage for id_, (passage, _) in back.items()} == {id_: passage for id_, (passage, _) in wanted.items()}
    codec = CODECS[settings.codec]
    for id_, (_, vectors) in wanted.items():
        np.testing.assert_array_equal(back[id_][1], codec.decode(codec.encode(vectors)))


def test_what_was_fed_is_pulled_as_the_codec_keeps_it(world, tmp_path):
    copy_index(world.url, str(tmp_path / "back"), CopyOptions(bundle=world.bundle, journal=tmp_path / "j"))
    back, codec = contents(tmp_path / "back"), CODECS["bfloat16"]
    assert len(back) == len(world.documents)
    for document in world.documents:
        passage, vectors = back[f"{document.id}#0"]
        assert (passage.title, passage.text) == (document.title, document.text)
        kept = {name: value for name, value in document.metadata.items() if value not in (None, [])}
        assert world.settings.metadata.shown(passage.metadata) == world.settings.metadata.shown(
            world.settings.metadata.check(kept)
        )
        np.testing.assert_allclose(vectors, codec.decode(codec.encode(world.vectors[document.id])), atol=0.01)


@pytest.mark.parametrize("name", ["residual", "chunked", pytest.param("signs", marks=pytest.mark.slow)])
def test_a_backup_brings_back_what_was_removed(world, emptied, split, tmp_path, name):
    address = emptied(name)
    copy_index(str(split), address)
    before = {query: hits(address, query, 300) for query in QUERIES}  # all: passages of equal scores have no order
    made = backup_index(address, tmp_path / "backup", CopyOptions(bundle=world.bundle))
    assert made.documents == 90
    emptied.wipe(name)
    assert hits(address, QUERIES[0]) == ()
    restored = restore_index(tmp_path / "backup", address)
    assert (restored.documents, restored.passages, restored.notes) == (90, 270, ())
    for query, was in before.items():
        now = hits(address, query, 300)
        if name == "residual":  # encoded again from what was decoded
            assert [hit.score for hit in now] == pytest.approx([hit.score for hit in was], abs=0.05)
        else:
            assert by_passage(now) == {id_: pytest.approx(score, abs=1e-4) for id_, score in by_passage(was).items()}


def test_places_times_and_numbers_at_their_ends_come_back(world, emptied, tmp_path):
    address = emptied("placed")
    application = Application.read(address)
    schema = application.settings.metadata
    extra = {
        "at": "2026-01-03T12:00:00.123+01:00",
        "place": {"lat": -63.430001, "lng": 10.39},
        "small": -(2**31) + 1,
        "pages": 2**62 + 1,
    }
    given = [extra, {"small": 0, "leaf": False, "ratio": 0.1, "kind": ""}, {"tags": ["", "a"]}, {}]
    LocalIndex.create(tmp_path / "index", bundle=world.bundle, schema=schema, codec="float32")
    with LocalIndex.open(tmp_path / "index").writer() as writer:
        for number, metadata in enumerate(given):
            writer.put(
                Passage(f"x{number}#0", f"x{number}", "", "", schema.check(metadata)), world.vectors[world.documents[number].id]
            )
        writer.commit()
    copy_index(str(tmp_path / "index"), address)
    copy_index(address, str(tmp_path / "back"), CopyOptions(bundle=world.bundle))
    wanted, back = contents(tmp_path / "index"), contents(tmp_path / "back")
    assert {id_: passage for id_, (passage, _) in back.items()} == {id_: passage for id_, (passage, _) in wanted.items()}


def test_a_visit_goes_on_where_it_stopped(world, monkeypatch):
    """Continuation tokens of a visit that is given up are good for the next one."""
    monkeypatch.setattr("feeder.copying.vespa.PAGE", 50)
    stored = VespaSource(Application.read(world.url), world.bundle)
    first = next(stored.batches(""))
    rest = [document.document.id for batch in stored.batches(first.resume) for document in batch.documents]
    stored.close()
    assert 0 < len(first.documents) < len(world.documents)
    assert sorted([document.document.id for document in first.documents] + rest) == sorted(d.id for d in world.documents)
