"""What only a Vespa node shows of the client: several indexes in one request, deadlines, Vespa's own errors and numbers."""

from __future__ import annotations

import dataclasses

import httpx
import pytest

from feeder.targets import EncodedDocument
from feeder.targets.vespa import VespaTarget
from late_interaction.documents import Passage
from late_interaction.errors import IncompleteAnswer, VespaRefused, VespaTimeout
from query import Client, ClientSettings
from query.exchange import Exchange
from query.plans import VespaQuery
from vespa_app.running import Application
from vespa_app.running.layouts import document_path

pytestmark = pytest.mark.live

COUNT = 30
QUERY = "parse command line options"


@pytest.fixture(scope="module")
def beside(world):
    """Some documents, also in the index `residual`, with ids of their own."""
    application = Application.read(f"{world.url}#residual")
    documents = [dataclasses.replace(d, id=f"beside {d.id}") for d in world.documents[:COUNT]]
    target = VespaTarget(application, world.bundle)
    items = [EncodedDocument(d, (Passage.of(d),), (world.vectors[d.id.removeprefix("beside ")],)) for d in documents]
    target.put(items)
    assert all(outcome.failure is None for outcome in target.settled(wait=True))
    target.close()
    yield application
    for item in items:
        path = document_path(application.settings, item.passages[0].id, item.document.metadata)
        httpx.delete(world.url + path, timeout=30).raise_for_status()


@pytest.mark.parametrize("candidates", ["exhaustive", "centroid", "bm25"])
def test_two_indexes_are_asked_in_one_request(world, beside, candidates):
    sent = []

    class Counted(httpx.HTTPTransport):
        def handle_request(self, request):
            sent.append(request.url.path)
            return super().handle_request(request)

    with Client(world.url, world.bundle, transport=Counted()) as client:
        sent.clear()
        both = client.search(QUERY, 40, index=["passage", "residual"], candidates=candidates, rerank=400)
        assert sent == ["/search/"]
        alone = [
            (hit.score, hit.passage_id, name)
            for name in ("passage", "residual")
            for hit in client.search(QUERY, 40, index=name, candidates=candidates, rerank=400).hits
        ]
    wanted = sorted(alone, reverse=True)[:40]
    assert [hit.score for hit in both.hits] == pytest.approx([score for score, *_ in wanted], abs=1e-3)
    assert {hit.passage_id: hit.index for hit in both.hits} == {id_: name for _, id_, name in wanted}


@pytest.mark.parametrize("candidates", ["centroid", "pooled"])
def test_the_client_scores_every_codec_as_vespa_does(world, beside, candidates):
    with Client(f"{world.url}#residual", world.bundle) as client:
        engine, here = (
            client.search(QUERY, 10, candidates=candidates, rerank=COUNT, scored=scored).hits for scored in ("engine", "client")
        )
    assert engine
    assert {h.passage_id: h.score for h in here} == pytest.approx({h.passage_id: h.score for h in engine}, abs=1e-3)


def test_no_time_is_vespas_own_timeout_or_ours(world):
    with pytest.raises(VespaTimeout):
        world.vespa.search(QUERY, 10, candidates="exhaustive", timeout=0.006)


def test_vespas_error_is_ours(world):
    exchange = Exchange(ClientSettings())
    try:
        with pytest.raises(VespaRefused, match="nowhere"):
            exchange.ask([VespaQuery(world.url, {"yql": "select * from nowhere where true"}, exchange.clock() + 5)])
    finally:
        exchange.close()


def test_an_answer_is_held_against_the_number_that_is_expected(world):
    many = len(world.documents)
    result = world.vespa.search(QUERY, 1)
    assert result.searched >= many and result.full
    assert {"vespa_query", "vespa_search", "vespa_summaries"} <= set(result.timings_ms)
    settings = ClientSettings(require_full=True, expected={"passage": 10 * many})
    with Client(world.url, world.bundle, settings=settings) as client, pytest.raises(IncompleteAnswer, match="expected"):
        client.search(QUERY, 1)


@pytest.mark.parametrize("candidates", ["exhaustive", "centroid"])
def test_an_explained_answer_says_what_each_phase_took(world, candidates):
    plain = world.vespa.search(QUERY, 3, candidates=candidates)
    told = world.vespa.search(QUERY, 3, candidates=candidates, explain=True)
    phases = {"vespa_matching", "vespa_first_phase"} | ({"vespa_second_phase"} if candidates == "centroid" else set())
    assert phases <= set(told.timings_ms)
    assert not phases & set(plain.timings_ms)
    assert all(0 < told.timings_ms[name] <= told.timings_ms["vespa_search"] + 1 for name in phases)


def test_the_candidates_of_the_first_stage_are_those_of_the_first_phase(world):
    first = [
        hit.stages["candidates"] for hit in world.vespa._run(world.vespa._core.search(QUERY, _options().for_first_stage())).hits
    ]
    assert len(first) == 10
    assert first == sorted(first, reverse=True) or first[1:] == sorted(first[1:], reverse=True)  # one has its MaxSim


def _options():
    from query.options import SearchOptions

    return SearchOptions(10, candidates="centroid")
