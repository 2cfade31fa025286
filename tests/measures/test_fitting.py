"""Fusion weights from recorded scores: what is found, what is within chance, and where it is written."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
from dense_bundles import made_bundle

from colbert_vespa.evaluation.collection import CollectionQuery
from colbert_vespa.evaluation.fitting import Way, fit_weights, record_scores, tomllib, write_weights
from colbert_vespa.evaluation.metrics import Metric
from feeder import FeedOptions, feed
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, SettingsError

NDCG = Metric("ndcg", 10)
EQUAL = Way({"bm25": 1.0, "dense": 1.0}, "rrf")


def recorded(queries, *, dense_knows):
    """Every query has one relevant document of 30, which BM25 finds by chance, and `dense` as often as it is told."""
    source = random.Random(5)
    scores, qrels = {}, {}
    for number in range(queries):
        documents = [f"d{place}" for place in range(30)]
        relevant = source.choice(documents)
        qrels[f"q{number}"] = {relevant: 1}
        scores[f"q{number}"] = {name: {id_: source.random() for id_ in documents} for name in ("bm25", "dense")}
        if source.random() < dense_knows:
            scores[f"q{number}"]["dense"][relevant] = 2.0
    return scores, qrels


def test_the_score_that_knows_gets_the_weight():
    scores, qrels = recorded(60, dense_knows=0.9)
    found = fit_weights(scores, qrels, EQUAL, NDCG)
    assert found.recommended
    assert found.fitted.weights.get("dense", 0) > found.fitted.weights.get("bm25", 0)
    assert found.held_out > found.before
    assert found.difference.randomisation <= 0.05
    assert fit_weights(dict(reversed(scores.items())), qrels, EQUAL, NDCG) == found
    assert found.to_json()["recommended"] is True


def test_a_gain_within_chance_is_not_recommended():
    scores, qrels = recorded(40, dense_knows=0)
    found = fit_weights(scores, qrels, EQUAL, NDCG)
    assert not found.recommended


def test_what_is_measured_on_a_query_had_no_part_in_its_choice():
    """Half of the queries like one way, half the other: each fold chooses by the rest, which cannot gain."""
    scores = {f"q{n}": {"bm25": {"r": 1.0, "x": 0.0}, "dense": {"r": 0.0, "x": 1.0}} for n in range(40)}
    qrels = {f"q{n}": {"r" if n % 2 else "x": 1} for n in range(40)}
    found = fit_weights(scores, qrels, Way({"bm25": 1.0}, "rrf"), NDCG)
    assert found.difference.difference == 0
    assert not found.recommended


def test_few_queries_are_refused():
    scores, qrels = recorded(19, dense_knows=1)
    with pytest.raises(CollectionError, match="19 judged queries are too few to fit weights; give at least 20"):
        fit_weights(scores, qrels, EQUAL, NDCG)


def test_scores_are_those_of_the_hits_stages():
    asked = []

    class Answering:
        def search(self, text, k, **options):
            asked.append((text, k, options["candidates"], options["weights"], options["fusion"], options["dense"]))
            return SimpleNamespace(hits=[SimpleNamespace(id="a", stages={"bm25": 2.0, "candidates": 7.0, "dense": 0.5}),
                                         SimpleNamespace(id="b", stages={"dense": 0.25})])  # fmt: skip

    judged = SimpleNamespace(queries=[CollectionQuery("q", "trees")])
    found = record_scores(Answering(), judged, Way({"bm25": 3.0, "dense": 1.0}, "sum"), lambda *_: None, dense="small")
    assert found == {"q": {"bm25": {"a": 2.0}, "dense": {"a": 0.5, "b": 0.25}}}
    assert asked == [("trees", 200, "hybrid", {"bm25": 1.0, "dense": 1.0}, "sum", "small")]


def test_weights_are_written_beside_what_stands_in_the_settings(tmp_path):
    path = tmp_path / "app.toml"
    path.write_text('# ours\ncodec = "int8"\n\n[cluster]\nnodes = 2')
    way = Way({"bm25": 0.3, "dense": 0.7}, "sum")
    write_weights(path, way)
    text = path.read_text()
    assert text == 'fusion = "sum"\n# ours\ncodec = "int8"\n\n[cluster]\nnodes = 2\n\n[weights]\nbm25 = 0.3\ndense = 0.7\n'
    with pytest.raises(SettingsError, match="already has 'fusion'"):
        write_weights(path, way)
    assert path.read_text() == text
    path.write_text("not toml =")
    with pytest.raises(SettingsError, match="cannot be read"):
        write_weights(path, way)
    write_weights(tmp_path / "new.toml", way)
    assert (tmp_path / "new.toml").read_text().startswith('fusion = "sum"\n')


def test_the_command_fits_an_index_and_writes_what_gains(tmp_path, cli):
    """Every query is a word of one document, which both scores may find."""
    words = [f"w{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(40)]
    documents = [
        Document(word, text=f"{word} {words[(n * 7 + 3) % 40]} {words[(n * 11 + 5) % 40]}") for n, word in enumerate(words)
    ]
    bundle = made_bundle(tmp_path / "bundle")
    feed(documents, FeedOptions(to=tmp_path / "index", bundle=bundle, journal=tmp_path / "journal"))
    collection = tmp_path / "collection"
    collection.mkdir()
    lines = [json.dumps({"_id": d.id, "title": "", "text": d.text}) for d in documents]
    (collection / "corpus.jsonl").write_text("\n".join(lines))
    (collection / "queries.jsonl").write_text("\n".join(json.dumps({"_id": word, "text": word}) for word in words))
    (collection / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{w}\t{w}\t1\n" for w in words))
    settings = tmp_path / "app.toml"
    asked = ["evaluate", "--from", str(tmp_path / "index"), "--collection", str(collection), "--json"]
    done = cli(*asked, "--fit", "--settings", str(settings))
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["queries"], set(found["now"]["weights"])) == (40, {"bm25", "maxsim"})
    assert found["recommended"] is settings.exists()
    if found["recommended"]:
        assert tomllib.loads(settings.read_text()) == {key: found["fitted"][key] for key in ("fusion", "weights")}
    assert "--settings works only with --fit" in cli(*asked, "--settings", str(settings), code=2).stderr
    for wrong, why in [
        (["--candidates", "bm25"], "omit --candidates bm25"),
        (["--weight", "bm25=1"], "give --weight for at least two"),
        (["--recall"], "omit --recall"),
    ]:
        assert why in cli(*asked, "--fit", *wrong, code=2).stderr
