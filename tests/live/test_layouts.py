"""Further indexes of one application on a real node: chunks beside passages, places and times."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from types import SimpleNamespace

import httpx
import pytest

from feeder import FeedOptions, start_feed
from late_interaction.errors import UsageError
from query import open_retriever
from vespa_app import build_package
from vespa_app.application import Application, chunked_fields
from vespa_app.layouts import document_path

pytestmark = pytest.mark.live

QUERIES = ("parse command line options", "wait for a thread to finish", "write an object as JSON text")
COUNT = 60  # documents


@pytest.fixture(scope="module")
def several(world, tmp_path_factory):
    """Some of the sample's documents in the shared application's further indexes."""
    folder = tmp_path_factory.mktemp("layouts")
    documents = world.documents[:COUNT]
    made = SimpleNamespace(documents=documents)
    made.ask = lambda name: open_retriever(f"{world.url}#{name}", world.bundle.path)
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
    with pytest.raises(UsageError, match="no index 'other'; it has: passage, chunked, placed, residual, signs"):
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
    fields = chunked_fields(passages, [world.vectors[d.id] for d in members], settings)
    path = document_path(settings, "five#0", {})
    httpx.post(world.url + path, json={"fields": fields}, timeout=30).raise_for_status()
    retriever = several.ask("chunked")
    try:
        for query in QUERIES:
            rows = world.encoder.encode_queries([query])[0]
            best = max(maxsim(rows, world.vectors[d.id]) for d in members)
            found = retriever.search(query, COUNT + 1, candidates="exhaustive", row_scores=True).hits
            hit = next(h for h in found if h.id == "five")
            assert hit.score == pytest.approx(best, abs=0.02)
            assert sum(hit.stages[f"row {row}"] for row in range(len(rows))) == pytest.approx(hit.score, abs=1e-3)
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
