"""All ways to search an index, side by side: which there are, what each is asked, and what the table says."""

from __future__ import annotations

import json
import random

import pytest
from dense_bundles import made_bundle, with_dense

from colbert_vespa.evaluation.collection import CollectionQuery
from colbert_vespa.evaluation.evaluating import EvaluationSettings, Judged
from colbert_vespa.evaluation.fitting import Way, _values
from colbert_vespa.evaluation.metrics import Metric
from colbert_vespa.evaluation.tradeoffs import built_index
from colbert_vespa.evaluation.ways import FITTED, measure_ways, ways_of
from feeder import FeedOptions, feed
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.plaid import Storage
from query import Client
from query.fusion import fused

WORDS = [f"w{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(40)]
DOCUMENTS = [
    Document(word, text=f"{word} {WORDS[(n * 7 + 3) % 40]} {WORDS[(n * 11 + 5) % 40]}") for n, word in enumerate(WORDS)
]
ALL = ("centroid", "bm25", "dense", "hybrid", "exhaustive")
FUSED = [
    "bm25+dense by rrf", "bm25+maxsim by rrf", "dense+maxsim by rrf", "bm25+dense by sum", "bm25+maxsim by sum",
    "dense+maxsim by sum", "bm25+dense+maxsim by rrf", "bm25+dense+maxsim by sum",
]  # fmt: skip
NAMES = [
    "bm25", "dense", "maxsim", "centroid -> maxsim", "bm25 -> maxsim", "dense -> maxsim", "bm25+dense -> maxsim", *FUSED,
]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    return with_dense(made_bundle(folder / "plain"), folder / "dense")


@pytest.fixture(scope="module")
def index(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    feed(DOCUMENTS, FeedOptions(to=folder / "index", bundle=bundle, journal=folder / "journal"))
    return folder / "index"


@pytest.fixture(scope="module")
def judged():
    """Every query is a word of one document, and some of another one, which is relevant too."""
    queries = [CollectionQuery(f"q-{word}", word) for word in WORDS[:24]]
    qrels = {f"q-{word}": {word: 1, WORDS[(n + 1) % 40]: 1} for n, word in enumerate(WORDS[:24])}
    return Judged.of("words", DOCUMENTS, queries, qrels)


@pytest.fixture(scope="module")
def measured(index, judged):
    with Client(index) as client:
        return measure_ways(client, judged, EvaluationSettings())


def names(*strategies):
    return [way.name for way in ways_of(strategies)]


def test_the_ways_of_an_index_are_those_that_it_has():
    assert names(*ALL) == NAMES
    assert names("centroid", "bm25", "hybrid", "exhaustive") == [name for name in NAMES if "dense" not in name]
    assert names("token", "pooled") == ["token -> maxsim", "pooled -> maxsim"]
    assert names("centroid", "bm25+dense") == [
        "centroid -> maxsim", "bm25 -> maxsim", "dense -> maxsim", "bm25+dense -> maxsim",
    ]  # fmt: skip
    assert names("centroid", "hybrid") == ["bm25", "centroid -> maxsim", "bm25+maxsim by rrf", "bm25+maxsim by sum"]
    scores = {way.name: way.scores for way in ways_of(ALL)}
    assert scores["bm25+dense -> maxsim"] == ("bm25", "dense", "maxsim")
    assert (scores["centroid -> maxsim"], scores["bm25+dense by sum"]) == (("maxsim",), ("bm25", "dense"))


def test_each_row_is_what_a_user_gets_by_such_a_search(index, judged, measured):
    asked = {
        "bm25": {"candidates": "hybrid", "weights": {"bm25": 1}},
        "maxsim": {"candidates": "exhaustive"},
        "bm25+dense -> maxsim": {"candidates": "bm25+dense"},
        "dense+maxsim by sum": {"candidates": "hybrid", "weights": {"dense": 1, "maxsim": 1}, "fusion": "sum"},
    }
    assert [row.name for row in measured.rows] == [*NAMES, FITTED]
    with Client(index) as client:
        for name, options in asked.items():
            for query in judged.queries[:5]:
                hits = client.search(query.text, 10, rerank=200, **options).hits
                assert measured.rankings[name][query.id][: len(hits)] == [hit.id for hit in hits], name


def test_fitted_weights_are_those_that_the_other_queries_chose(index, judged, measured):
    chosen = measured.fitted.chosen
    assert set(chosen) == {query.id for query in judged.queries}
    with Client(index) as client:
        for query in judged.queries[:8]:
            way = chosen[query.id]
            hits = client.search(
                query.text, 10, candidates="hybrid", rerank=200, weights=way.weights, fusion=way.fusion
            ).hits  # fmt: skip
            assert measured.rankings[FITTED][query.id][: len(hits)] == [hit.id for hit in hits]


def test_every_row_is_compared_with_every_single_score(measured):
    for row in measured.rows:
        assert row.single == (row.name in ("bm25", "dense", "maxsim"))
        assert set(row.differences) == {"bm25", "dense", "maxsim"} - {row.name}
        for name, found in row.differences.items():
            theirs = measured.row(name).metrics["ndcg_at_10"]
            assert found["ndcg_at_10"].difference == pytest.approx(row.metrics["ndcg_at_10"] - theirs)
    assert measured.best.metrics["ndcg_at_10"] == max(row.metrics["ndcg_at_10"] for row in measured.rows)
    assert "rankings" not in measured.to_json() and "chosen" not in measured.to_json()["fitted"]
    json.dumps(measured.to_json())


def test_few_queries_fit_no_weights_and_ready_rows_are_no_words(index, judged):
    few = Judged(judged.name, judged.documents, judged.queries[:2], judged.qrels)
    bare = Judged(judged.name, judged.documents, [CollectionQuery("q", "", [[1.0] + [0.0] * 15])], judged.qrels)
    with Client(index) as client:
        assert measure_ways(client, few, EvaluationSettings()).fitted is None
        with pytest.raises(UsageError, match="text"):
            measure_ways(client, bare, EvaluationSettings())
        with pytest.raises(UsageError, match="--rerank 100"):
            measure_ways(client, few, EvaluationSettings(rerank=99))


def test_weights_are_tried_as_a_search_fuses():
    source = random.Random(3)
    ndcg = Metric("ndcg", 10)
    for _ in range(20):
        ids = [f"d{number}" for number in range(30)]
        of = {name: {id_: source.choice((0.1, 0.5, source.random())) for id_ in source.sample(ids, 12)} for name in "abc"}
        judged = dict.fromkeys(source.sample(ids, 5), 1.0)
        ways = [Way({"a": 0.3, "b": 0.7}, "sum"), Way({"c": 1.0}, "rrf"), Way({"a": 0.2, "b": 0.2, "c": 0.6}, "rrf")]
        expected = []
        for way in ways:
            scores = fused(of, way.weights, way.fusion)
            expected.append(ndcg.of(sorted(scores, key=lambda id_: (-scores[id_], id_)), judged))
        assert _values(of, judged, ways, ndcg).tolist() == pytest.approx(expected)


def test_the_command_shows_the_table_and_refuses_what_it_does_not_read(index, tmp_path, cli):
    lines = [json.dumps({"_id": d.id, "title": "", "text": d.text}) for d in DOCUMENTS]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "queries.jsonl").write_text("\n".join(json.dumps({"_id": word, "text": word}) for word in WORDS))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{w}\t{w}\t1\n" for w in WORDS))
    asked = ["evaluate", "--from", str(index), "--collection", str(tmp_path), "--compare", "--queries", "20"]
    done = cli(*asked, "--json", "--metric", "mrr@5")
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["name"] for row in found["rows"]] == [*NAMES, FITTED]
    assert (found["queries"], found["metric"]) == (20, "mrr_at_5") == (found["fitted"]["queries"], found["fitted"]["metric"])
    assert "bm25+dense" in done.stderr and "fitted" in done.stderr
    for wrong in (["--candidates", "bm25"], ["--weight", "bm25=1"], ["--fit"], ["--recall"], ["--run", str(tmp_path / "run")]):
        assert wrong[0] in cli(*asked, *wrong, code=2).stderr


def test_tradeoffs_of_a_bundle_with_a_dense_model_are_of_its_token_vectors(bundle, tmp_path):
    index, _ = built_index(tmp_path / "index", Encoder(bundle), DOCUMENTS, Storage("binary"), 1)
    assert (index.passages, dict(index.dense), index.bundle.manifest.dense) == (40, {}, {})
    with Client(index.path) as client:
        assert client.search(WORDS[0], 3).hits
