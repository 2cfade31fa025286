"""`evaluate`: runs, baselines and trade-offs through the command."""

import json

import numpy as np
import pytest

from colbert_vespa.evaluation.baselines import dense_run, fused_run
from colbert_vespa.evaluation.collection import CollectionQuery, read_collection
from colbert_vespa.evaluation.evaluating import Judged
from colbert_vespa.evaluation.tradeoffs import front, measure_tradeoffs, plot_tradeoffs
from late_interaction.documents import Document
from late_interaction.plaid import Storage


def last(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def evaluated(cli, sample_index, sample_collection, tmp_path_factory):
    """The command's answer, and the run that it wrote."""
    run = tmp_path_factory.mktemp("run") / "run.trec"
    asked = ("evaluate", "--from", str(sample_index), "--collection", str(sample_collection), "--queries", "15")
    return last(cli(*asked, "--metric", "ndcg@5", "--run", str(run), "--json")), run


def test_every_baseline_has_every_metric_and_a_difference(evaluated):
    answer, _ = evaluated
    keys = {"ndcg_at_10", "mrr_at_10", "recall_at_100", "map_at_100", "ndcg_at_5"}
    assert set(answer["baselines"]) == {"bm25", "dense", "bm25_dense", "hybrid"} == set(answer["differences"])
    for name, values in answer["baselines"].items():
        assert set(values) == set(answer["differences"][name]) == set(answer["metrics"]) == keys
        for key in keys:
            difference = answer["differences"][name][key]
            assert difference["difference"] == pytest.approx(answer["metrics"][key] - values[key])
            assert 0 <= difference["randomisation"] <= 1


def test_the_run_has_the_figures_that_were_reported(evaluated, cli, sample_collection, tmp_path):
    """Read again as a run of any engine, compared with itself, and told to be no different."""
    answer, run = evaluated
    asked = {line.split()[0] for line in run.read_text().splitlines()}
    qrels = tmp_path / "qrels"
    judged = read_collection(sample_collection).qrels
    qrels.write_text("".join(f"{q} 0 {d} {int(v)}\n" for q in asked for d, v in judged[q].items()))
    again = last(cli("evaluate", "--from", str(run), "--qrels", str(qrels), "--baseline", str(run), "--json"))
    for key, value in again["metrics"].items():
        assert value == pytest.approx(answer["metrics"][key], abs=1e-9)
        assert again["differences"]["baseline"][key]["randomisation"] == 1.0
    shown = cli("evaluate", "--from", str(run), "--qrels", str(qrels), "--baseline", str(run)).stdout
    assert "ndcg@10" in shown and "baseline" in shown


def test_options_that_do_not_go_together(cli, evaluated, sample_collection):
    run = str(evaluated[1])
    assert "--qrels FILE" in cli("evaluate", "--from", run, code=2).stderr
    assert "give --from ADDRESS" in cli("evaluate", "--collection", str(sample_collection), code=2).stderr
    assert "builds its own indexes" in cli("evaluate", "--from", run, "--tradeoffs", code=2).stderr


def test_dense_search_and_fusion_by_hand():
    documents = [Document("a", text="a"), Document("b", text="b"), Document("c", text="c")]
    D = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    dense = dense_run(documents, [CollectionQuery("q", "x")], D, np.array([[0, 1]], np.float32), 2)
    assert dense == {"q": [("b", pytest.approx(1.0)), ("c", pytest.approx(0.8))]}
    fused = fused_run(dense, {"q": [("c", 7.0), ("a", 1.0)]}, 3)
    assert fused == {"q": [("c", 1 / 62 + 1 / 61), ("b", 1 / 61), ("a", 1 / 62)]}


def test_the_front_leaves_out_what_another_dominates():
    assert front([(1, 0.5), (2, 0.5), (2, 0.7), (3, 0.6), (3, 0.9), (1, 0.4)]) == {0, 2, 4}
    assert front([]) == set()


@pytest.mark.slow
def test_tradeoffs_over_codecs_and_pooling(minilm_encoder, stdlib_sample, sample_collection, tmp_path):
    read = read_collection(sample_collection)
    judged = Judged.of(read.name, stdlib_sample[:50], read.queries, read.qrels, 4)
    found = measure_tradeoffs(
        minilm_encoder, judged, storages=(Storage("float32"), Storage("residual", 2)), poolings=(1, 2),
        candidates=("centroid", "exhaustive"),
    )  # fmt: skip
    by = {(p.codec, p.pooling, p.candidates): p for p in found.points}
    assert len(by) == 8
    assert by["float32", 1, "exhaustive"].bytes_per_passage > 4 * by["residual2", 1, "exhaustive"].bytes_per_passage
    assert by["residual2", 1, "centroid"].bytes_per_passage > 1.5 * by["residual2", 2, "centroid"].bytes_per_passage
    assert any(p.by_bytes for p in found.points) and any(p.by_latency for p in found.points)
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    plot_tradeoffs(found, tmp_path / "plot.svg")
    assert "bytes a passage" in (tmp_path / "plot.svg").read_text() or (tmp_path / "plot.svg").stat().st_size > 10_000
