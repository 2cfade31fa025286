"""Further indexes of one application on a real node: chunks beside passages, places and times."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
from types import SimpleNamespace

import httpx
import pytest
from filter_model import matches, random_filter

from feeder import FeedOptions, start_feed
from late_interaction.errors import UsageError
from late_interaction.plaid import LocalIndex
from query import Client
from vespa_app import build_package
from vespa_app.running import Application
from vespa_app.running.documents import document_fields
from vespa_app.running.layouts import document_path

pytestmark = pytest.mark.live

QUERIES = ("parse command line options", "wait for a thread to finish", "write an object as JSON text")
COUNT = 60  # documents


@pytest.fixture(scope="module")
def several(world, tmp_path_factory):
    """Some of the sample's documents in the shared application's further indexes."""
    folder = tmp_path_factory.mktemp("layouts")
    documents = world.documents[:COUNT]
    made = SimpleNamespace(documents=documents)
    made.ask = lambda name: Client(f"{world.url}#{name}", world.bundle.path)
    made.feed = lambda name, items: feed(world, folder, name, items)
    made.feed("chunked", documents)
    return made


def feed(world, folder, name, documents):
    address = f"{world.url}#{name}"
    options = FeedOptions(to=address, bundle=world.bundle, encoder=world.encoder, journal=folder / f"journal-{name}")
    with start_feed([documents], options) as run:
        summary = run.go()
    assert (summary.acknowledged, summary.dead_lettered) == (len(documents), 0)


def test_an_address_names_an_index(world, several):
    assert Application.read(f"{world.url}#chunked").settings.layout == "chunks"
    assert Application.read(world.url).settings.schema == "passage"
    with pytest.raises(UsageError, match="no index 'other'; it has: passage, chunked, placed, listed, residual, kept, signs"):
        Application.read(f"{world.url}#other")


def test_a_document_of_one_chunk_answers_as_a_passage(world, several):
    retriever = several.ask("chunked")
    wanted = {d.id for d in several.documents}
    for query in QUERIES:
        passages = world.vespa.search(query, len(world.documents), candidates="exhaustive").hits
        scores = {hit.id: hit.score for hit in passages if hit.id in wanted}
        found = retriever.search(query, COUNT, candidates="exhaustive").hits
        assert {hit.id: hit.score for hit in found} == pytest.approx(scores, abs=1e-4)
        assert {hit.id: hit.text for hit in found} == {hit.id: hit.text for hit in passages if hit.id in wanted}
    retriever.close()


def test_a_document_scores_as_its_best_chunk(world, several):
    """Five documents as the chunks of one."""
    from late_interaction.documents import Passage
    from late_interaction.maxsim import maxsim

    members = several.documents[:5]
    passages = [Passage.of(dataclasses.replace(document, id="five", metadata={})) for document in members]
    settings = Application.read(f"{world.url}#chunked").settings
    fields = document_fields(passages, [world.vectors[d.id] for d in members], settings)
    path = document_path(settings, "five#0", {})
    httpx.post(world.url + path, json={"fields": fields}, timeout=30).raise_for_status()
    retriever = several.ask("chunked")
    try:
        for query in QUERIES:
            rows = world.encoder.encode_queries([query])[0]
            best = max(maxsim(rows, world.vectors[d.id]) for d in members)
            found = retriever.search(query, COUNT + 1, candidates="exhaustive", explain=True).hits
            hit = next(h for h in found if h.id == "five")
            assert hit.score == pytest.approx(best, abs=0.02)
            assert sum(hit.rows) == pytest.approx(hit.score, abs=1e-3)
            assert hit.text == "\n".join(passage.text for passage in passages)
    finally:
        httpx.delete(world.url + path, timeout=30).raise_for_status()
        retriever.close()


def test_times_and_places_are_filtered_and_shown(world, several):
    """Cities along a line, a day apart."""
    places = [{"lat": 59.9 + place / 10, "lng": 10.7} for place in range(10)]
    extra = [
        {"at": f"2026-01-{place + 1:02}T12:00:00+01:00", "place": places[place], "small": place - 5} for place in range(10)
    ]
    documents = [
        dataclasses.replace(document, metadata={**document.metadata, **more})
        for document, more in zip(several.documents, extra, strict=False)
    ]
    several.feed("placed", documents)
    retriever = several.ask("placed")

    def found(where):
        hits = retriever.search("anything", 20, where=where).hits
        return {documents.index(next(d for d in documents if d.id == hit.id)) for hit in hits}

    assert found({"at": {"$gte": "2026-01-04"}}) == set(range(3, 10))
    assert found({"at": "2026-01-04T11:00:00Z"}) == {3}
    assert found({"at": {"$lt": "2026-01-04T11:00:00Z", "$gt": "2026-01-01T11:00:00Z"}}) == {1, 2}
    near = {"lat": 59.9, "lng": 10.7}
    for km, count in ((1, 1), (11, 1), (11.3, 2), (34, 4), (5000, 10)):
        assert found({"place": {"$near": {**near, "km": km}}}) == set(range(count)), km
    assert found({"$not": {"place": {"$near": {**near, "km": 34}}}}) == set(range(4, 10))
    assert found({"small": {"$lte": -3}}) == {0, 1, 2}
    assert found({"place": {"$exists": False}}) == set()
    hit = next(h for h in retriever.search("anything", 20).hits if h.id == documents[2].id)
    assert hit.metadata["at"] == "2026-01-03T11:00:00Z"
    assert hit.metadata["place"] == pytest.approx(places[2])
    retriever.close()


def test_lists_are_filtered_as_the_local_engine_and_the_definition_do(world, several, tmp_path):
    """Random lists of every type, some empty, some missing; numbers at both ends of what each type holds."""
    rng = random.Random(11)
    values = {
        "names": ["", "a", "A", "b c", 'd"\\'],
        "small": [-(2**31) + 1, -7, 0, 3, 2**31 - 1],
        "large": [-(2**63) + 1, -(2**40), 0, 2**53, 2**53 + 1, 2**62],
        "single": [-1.5, 0.0, 0.25, 7.0],
        "double": [-1e300, 0.1, 0.5, 1e-9],
        "seen": ["1969-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"],
        "year": [2020, 2021],
    }
    documents = []
    for document in several.documents[:40]:
        metadata = {name: rng.choices(some, k=rng.randint(0, 3)) for name, some in values.items() if rng.random() < 0.8}
        metadata["year"] = rng.choice(values["year"])
        documents.append(dataclasses.replace(document, metadata=metadata))
    several.feed("listed", documents)
    schema = Application.read(f"{world.url}#listed").settings.metadata
    LocalIndex.create(tmp_path / "index", bundle=world.bundle, schema=schema)
    options = FeedOptions(to=str(tmp_path / "index"), bundle=world.bundle, encoder=world.encoder, journal=tmp_path / "journal")
    with start_feed([documents], options) as run:
        assert run.go().acknowledged == len(documents)
    vespa, local = several.ask("listed"), Client(str(tmp_path / "index"))
    sizes = set()
    for _ in range(150):
        where = random_filter(rng, documents)
        wanted = {d.id for d in documents if matches(where, d.metadata)}
        for retriever in (vespa, local):
            hits = retriever.search("anything", len(documents), where=where, candidates="exhaustive").hits
            assert {hit.id for hit in hits} == wanted, where
        sizes.add(len(wanted))
    assert len(sizes) > 15
    shown = {hit.id: hit.metadata for hit in vespa.search("anything", len(documents)).hits}
    for document in documents:
        assert shown[document.id] == {name: value for name, value in document.metadata.items() if value != []}
    vespa.close()
    local.close()


def test_the_readmes_commands_work(world, tmp_path):
    package = build_package(world.bundle, world.settings).explained(world.url).write(tmp_path / "package")
    lines = (package / "README.md").read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("    curl ")]
    assert len(commands) == 3
    answers = []
    for command in commands:
        done = subprocess.run(["bash", "-c", command + " -s -f"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stderr)
        answers.append(json.loads(done.stdout))
    assert answers[0]["fields"]["description"]
    assert answers[1]["root"]["fields"]["totalCount"] == len(world.documents)
    assert len(answers[2]["root"]["children"]) == 3
