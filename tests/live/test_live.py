"""The generated application on a real Vespa node: deploy, feed, search, filter, delete, redeploy; beside the local engine."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
from filter_model import matches, random_filter
from vespa_bundles import WITHOUT_DENSE

from colbert_vespa.evaluation.ways import ways_of
from feeder import FeedOptions, start_feed
from late_interaction.documents import Document, passage_text
from late_interaction.filters import parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.metrics import overlap_at_k
from query import Client, explain
from vespa_app import build_package
from vespa_app.deploying import deploy
from vespa_app.running import Application

pytestmark = pytest.mark.live

QUERIES = (
    "parse command line options",
    "wait for a thread to finish",
    "the arithmetic mean of numbers",
    "write an object as JSON text",
    "delete a file from disk",
    "random choice from a sequence",
    "send an HTTP request",
    "split a path into its parts",
)


def exact(world, query, documents=None):
    """Ids by exact MaxSim over the float32 vectors, best first, with scores."""
    Q = world.encoder.encode_queries([query])[0]
    scored = [(maxsim(Q, world.vectors[d.id]), d.id) for d in documents or world.documents]
    return [(id_, score) for score, id_ in sorted(scored, key=lambda pair: (-pair[0], pair[1]))]


def test_the_application_describes_itself(world):
    application = Application.read(world.url)
    assert application.settings == world.settings
    assert application.bundle_sha256 == world.bundle.sha256


def test_exhaustive_search_is_exact_maxsim(world):
    for query in QUERIES:
        truth = dict(exact(world, query))
        hits = world.vespa.search(query, 10, candidates="exhaustive").hits
        assert len(hits) == 10
        for hit in hits:
            assert hit.score == pytest.approx(truth[hit.id], abs=0.02)  # bfloat16 rows
        assert overlap_at_k([hit.id for hit in hits], [id_ for id_, _ in exact(world, query)], 10) >= 0.9


@pytest.mark.parametrize("candidates", ["centroid", "pooled", "token", "bm25"])
def test_candidates_are_reranked_by_maxsim(world, candidates):
    found, recalls = 0, []
    for query in QUERIES:
        truth = exact(world, query)
        result = world.vespa.search(query, 10, candidates=candidates, rerank=150)
        scores = dict(truth)
        assert result.candidates == candidates
        assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
        for hit in result.hits:
            assert hit.score == pytest.approx(scores[hit.id], abs=0.02)
        recalls.append(overlap_at_k([hit.id for hit in result.hits], [id_ for id_, _ in truth], 10))
        found += len(result.hits)
    if candidates == "bm25":
        assert found > 0  # words must be shared, so recall is what it is
    else:
        assert np.mean(recalls) >= 0.9


def test_local_and_vespa_agree(world):
    """Same vectors, two codecs: scores differ by the codecs' errors, and so may the order of near ties."""
    for query in QUERIES:
        local = world.local.search(query, 10, candidates="exhaustive").hits
        vespa = world.vespa.search(query, 10, candidates="exhaustive").hits
        assert overlap_at_k([h.id for h in local], [h.id for h in vespa], 10) >= 0.8
        both = {h.id: h for h in vespa}
        for hit in local:
            if hit.id in both:
                other = both[hit.id]
                assert hit.score == pytest.approx(other.score, rel=0.02)
                assert (hit.passage_id, hit.title, hit.text, dict(hit.metadata)) == (
                    other.passage_id, other.title, other.text, dict(other.metadata),
                )  # fmt: skip


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_filters_select_the_same_documents_everywhere(world, count):
    rng = random.Random(count)
    everything = len(world.documents)
    sizes = set()
    row = world.encoder.encode_queries(["anything at all"])[0][:1]  # which score does not matter
    for _ in range(count):
        where = random_filter(rng, world.documents)
        parse_filter(where, world.settings.metadata)
        wanted = {d.id for d in world.documents if matches(where, d.metadata)}
        vespa = {h.id for h in world.vespa.search(row, everything, where=where, candidates="exhaustive").hits}
        local = {h.id for h in world.local.search(row, everything, where=where, candidates="exhaustive").hits}
        assert vespa == wanted, where
        assert local == wanted, where
        sizes.add(len(wanted))
    assert len(sizes) > 20  # the filters really select


@pytest.mark.parametrize("candidates", WITHOUT_DENSE)
def test_filters_hold_for_every_strategy(world, candidates):
    where = {"module": "pathlib"}
    inside = [d for d in world.documents if d.metadata.get("module") == "pathlib"]
    result = world.vespa.search("delete a file from disk", 5, where=where, candidates=candidates)
    assert result.hits
    assert all(hit.metadata["module"] == "pathlib" for hit in result.hits)
    if candidates not in ("bm25", "hybrid"):
        truth = exact(world, "delete a file from disk", inside)
        assert overlap_at_k([h.id for h in result.hits], [id_ for id_, _ in truth], 5) >= 0.8
    assert world.vespa.search("file", 5, where={"module": "no such module"}, candidates=candidates).hits == ()


def test_ready_rows_ask_the_same_as_text(world):
    rows = world.encoder.encode_queries([QUERIES[0]])[0]
    for retriever in (world.local, world.vespa):
        by_text = [(h.id, round(h.score, 3)) for h in retriever.search(QUERIES[0], 5).hits]
        assert [(h.id, round(h.score, 3)) for h in retriever.search(rows, 5).hits] == by_text


def test_explanations_name_words_of_the_passage(world):
    hit = world.vespa.search("parse command line options", 1).hits[0]
    explanation = explain(world.encoder, "parse command line options", [hit])[0]
    assert [match.query_word for match in explanation.matches] == ["parse", "command", "line", "options"]
    for match in explanation.matches:
        assert explanation.text[match.start : match.end] == match.passage_word
    assert explanation.text == passage_text(hit.title, hit.text)


def test_delete_and_upsert_are_real_at_once(world, tmp_path):
    """On both backends: hostile ids, a changed document, a deleted one."""
    ids = ("tmp/a b#0", 'tmp"q\\', "tmp-ümlaut-日本", "tmp?x=1&y=%41")
    old = [Document(id_, "Zanzibar", f"clove harvest number {n}", {"module": "tmp"}) for n, id_ in enumerate(ids)]
    new = [dataclasses.replace(document, text="penguin colony in winter") for document in old]
    for address, retriever in ((world.url, world.vespa), (str(world.index), world.local)):

        def go(documents, operation="put", address=address):
            options = FeedOptions(
                to=address, bundle=world.bundle, encoder=world.encoder, operation=operation, journal=tmp_path / "j"
            )
            with start_feed([documents], options) as run:
                summary = run.go()
            assert summary.dead_lettered == 0
            return summary

        def found(retriever=retriever):
            return {
                h.id: h.text for h in retriever.search("penguins", 50, where={"module": "tmp"}, candidates="exhaustive").hits
            }

        assert go(old).acknowledged == 4
        assert found() == {d.id: d.text for d in old}
        go(new)
        assert found() == {d.id: d.text for d in new}
        assert go(new[:3], operation="delete").acknowledged == 3
        assert found() == {ids[3]: new[3].text}
        go(new, operation="delete")
        assert found() == {}


def test_the_command_line_on_the_node(world, cli):
    done = cli("search", "parse command line options", "--from", world.url, "-k", "3", "--json", "--where", '{"kind": "class"}')
    answer = json.loads(done.stdout.splitlines()[-1])
    assert len(answer["hits"]) == 3
    assert {hit["metadata"]["kind"] for hit in answer["hits"]} == {"class"}
    done = cli("evaluate", "--from", world.url, "--collection", str(world.collection), "--json")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["recall_at_10"] >= 0.9
    assert answer["passages"] == len(world.documents)
    assert set(answer["baselines"]["bm25"]) >= {"ndcg_at_10"}


def test_every_way_to_search_the_node_is_compared(world, cli):
    done = cli("evaluate", "--from", world.url, "--collection", str(world.collection), "--compare", "--queries", "5", "--json")
    report = json.loads(done.stdout.splitlines()[-1])
    with Client(world.url, world.bundle) as client:
        assert [row["name"] for row in report["rows"]] == [way.name for way in ways_of(client.strategies)]
    assert all(row["metrics"]["ndcg_at_10"] > 0 for row in report["rows"])


def test_the_least_effort_for_a_recall_goal_on_the_node(world, cli, tmp_path):
    done = cli("evaluate", "--from", world.url, "--collection", str(world.collection), "--recall", "--goal", "recall@10=0.9",
               "--candidates", "pooled", "--queries", "6", "--plot", str(tmp_path / "curve.png"), "--json")  # fmt: skip
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["queries"] == 6
    assert [effort["strategy"] for effort in report["chosen"]] == ["pooled"]
    assert report["chosen"][0]["recall"] >= 0.9 > 0
    assert max(effort["recall"] for effort in report["curve"]) >= report["chosen"][0]["recall"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def feed_one(world, document, folder):
    options = FeedOptions(to=world.url, bundle=world.bundle, encoder=world.encoder, journal=folder / "j")
    with start_feed([[document]], options) as run:
        assert run.go().acknowledged == 1


def test_zz_redeploy_on_a_used_node(world, tmp_path):
    """Last: an added metadata field goes live, what was fed stays, and the new field can be fed and asked for."""
    fields = MetadataSchema({**world.settings.metadata.fields, "added": FieldType.LONG})
    settings = dataclasses.replace(world.settings, metadata=fields)
    build_package(world.bundle, settings).write(tmp_path / "package")
    deploy(tmp_path / "package", world.config_url, query_url=world.url)
    assert Application.read(world.url).settings == settings
    retriever = world.open()
    before = {h.id for h in retriever.search("anything", len(world.documents), candidates="exhaustive").hits}
    assert before == {d.id for d in world.documents}
    changed = dataclasses.replace(world.documents[0], metadata={**world.documents[0].metadata, "added": 7})
    feed_one(world, changed, tmp_path)
    hits = retriever.search("anything", 10, where={"added": {"$gt": 6}}, candidates="exhaustive").hits
    assert [hit.id for hit in hits] == [changed.id]
    feed_one(world, world.documents[0], tmp_path)  # as others expect it
    retriever.close()
