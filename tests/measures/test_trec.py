"""Runs and metrics as trec_eval has them."""

import random

import pytest

from colbert_vespa.evaluation.collection import read_qrels
from colbert_vespa.evaluation.metrics import Metric, means, parse_metric
from colbert_vespa.evaluation.runs import rankings_of, read_run, write_run
from late_interaction.errors import CollectionError, UsageError

pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval-terrier is not installed")
THEIRS = {"ndcg_cut_5": Metric("ndcg", 5), "ndcg_cut_10": Metric("ndcg", 10), "recall_10": Metric("recall", 10),
          "recall_100": Metric("recall", 100), "map_cut_10": Metric("map", 10), "map_cut_100": Metric("map", 100),
          "recip_rank": Metric("mrr", 1000)}  # fmt: skip


def random_case(seed):
    """Judgements of 0 to 3, rankings with documents that nobody judged, equal scores among them."""
    rng = random.Random(seed)
    qrels, run = {}, {}
    for query in map(str, range(30)):
        documents = [f"d{n}" for n in range(rng.randrange(1, 200))]
        judged = rng.sample(documents, rng.randrange(1, len(documents) + 1))
        qrels[query] = {id_: rng.choice([0, 0, 0, 1, 2, 3]) for id_ in judged} | {
            f"missing{n}": 1 for n in range(rng.randrange(3))
        }
        run[query] = {id_: rng.choice([rng.random(), 0.5]) for id_ in documents}
    return qrels, run


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_trec_eval_to_1e_9(tmp_path, seed):
    qrels, run = random_case(seed)
    (tmp_path / "run").write_text("".join(f"{q} Q0 {d} 0 {s!r} x\n" for q, hits in run.items() for d, s in hits.items()))
    names = {"ndcg_cut.5,10", "recall.10,100", "map_cut.10,100", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
    rankings = rankings_of(read_run(tmp_path / "run"))
    for name, metric in THEIRS.items():
        ours = metric.values(rankings, qrels, list(qrels))
        assert ours == pytest.approx([theirs[query][name] for query in qrels], abs=1e-9), name


def test_a_written_run_keeps_its_order_under_trec_eval(tmp_path):
    """Equal scores, and one that is greater than the one before it."""
    hits = [("b", 2.0), ("z", 2.0), ("a", 2.0), ("c", 2.5), ("d", 1.0), ("e", -3.0), ("f", -3.0)]
    write_run(tmp_path / "run", {"q1": hits, "q2": [("b", 0.0), ("a", 0.0)]})
    back = read_run(tmp_path / "run")
    assert [id_ for id_, _ in back["q1"]] == ["b", "z", "a", "c", "d", "e", "f"]
    assert [id_ for id_, _ in back["q2"]] == ["b", "a"]
    assert dict(back["q1"]) == pytest.approx(dict(hits) | {"c": 2.0})
    qrels = {"q1": {"a": 1, "e": 1}, "q2": {"a": 1}}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate({q: dict(h) for q, h in back.items()})
    assert {q: v["recip_rank"] for q, v in theirs.items()} == {"q1": 1 / 3, "q2": 1 / 2}


def test_equal_scores_are_read_in_trec_evals_order(tmp_path):
    (tmp_path / "run").write_text("q Q0 a 1 1.0 x\nq Q0 c 2 1.0 x\nq Q0 b 3 1.0 x\n")
    assert rankings_of(read_run(tmp_path / "run")) == {"q": ["c", "b", "a"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [("q Q0 a 1 x tag", ":1: expected"), ("q Q0 a 1 nan tag", ":1: expected"), ("q a 1", ":1: expected"), ("\n", "no line"),
     ("q Q0 a 1 2 t\nq Q0 a 2 1 t", ":2: document a occurs twice")],
)  # fmt: skip
def test_what_is_no_run(tmp_path, text, said):
    (tmp_path / "run").write_text(text)
    with pytest.raises(CollectionError, match=said):
        read_run(tmp_path / "run")


def test_an_id_with_a_blank_fits_no_run(tmp_path):
    with pytest.raises(UsageError, match="'a b' contains a space"):
        write_run(tmp_path / "run", {"q": [("a b", 1.0)]})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text", ["q1 0 d1 2\nq1 0 d2 0\n", "q1\t0\td1\t2\nq1\t0\td2\t0\n", "query-id\tdoc\tscore\nq1\td1\t2\nq1\td2\t0\n"]
)
def test_judgements_of_trec_and_beir(tmp_path, text):
    (tmp_path / "qrels").write_text(text)
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 2.0, "d2": 0.0}}


def test_metric_names():
    assert parse_metric("nDCG@20") == Metric("ndcg", 20)
    assert means([Metric("recall", 1)], {"q": ["a"]}, {"q": {"a": 1.0}, "p": {"a": 1.0}}, ["q", "p"]) == {"recall_at_1": 0.5}
    for text in ("ndcg", "f1@10", "map@0", "map@2000"):
        with pytest.raises(UsageError, match="--metric must be"):
            parse_metric(text)
