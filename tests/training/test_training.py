"""A tiny model through the whole of training: curves, checkpoints, layouts, report."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the train extra is not installed")

import checkpoints
import numpy as np

from colbert_vespa.training import (
    HoldOut,
    MiningSettings,
    TrainingData,
    TrainingSettings,
    adapt,
    distill,
    examples_of,
    train,
)
from exporter.layouts.scanning import scan_checkpoint
from exporter.loading import load_checkpoint
from late_interaction.errors import UsageError

WORDS = ("thread", "lock", "capital", "france", "paris", "fox", "dog", "token", "vector", "score", "join", "mutex")
PAIRS = [(f"{a} {b}", f"{b} the {a} is of {a} and then {b} {n}") for n, (a, b) in enumerate(pairwise(WORDS))]
FEW = TrainingSettings(batch_size=4, steps=6, learning_rate=1e-3, document_length=24, evaluate_every=2)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return checkpoints.stanford(tmp_path_factory.mktemp("start") / "model")


def data() -> TrainingData:
    return TrainingData(examples_of(PAIRS))


def weights(folder: Path) -> dict[str, np.ndarray]:
    model = load_checkpoint(scan_checkpoint(folder)).model
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_a_run_reports_before_and_after(start, tmp_path):
    settings = dataclasses.replace(FEW, steps=18, evaluate_every=6)
    said = []
    done = train(
        str(start), data(), tmp_path / "out", settings, hold_out=HoldOut(share=0.3), progress=lambda what, *_: said.append(what)
    )
    report = json.loads((done.work / "report.json").read_text())
    assert list(report["systems"]) == ["trained", "start", "BM25"]
    assert len(report["losses"]) == 18
    assert [step for step, _ in report["evaluations"]] == [0, 6, 12, 18]
    assert all(set(means) == {"ndcg_at_10", "mrr_at_10", "recall_at_100"} for _, means in report["evaluations"])
    assert report["best_step"] in (6, 12, 18)
    assert any("BM25" in what and "at step 12" in what for what in said)
    assert {"measuring start", "measuring trained"} <= set(said)
    assert (done.work / "report.png").stat().st_size > 0
    assert list((done.work / "trainer").rglob("events.out.tfevents*"))


def test_the_same_seed_gives_the_same_weights(start, tmp_path):
    one, two = (weights(train(str(start), data(), tmp_path / name, FEW).checkpoint) for name in ("one", "two"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_killed_run_resumes_to_the_same_loss_curve(start, tmp_path):
    whole = train(str(start), data(), tmp_path / "whole", FEW, hold_out=HoldOut(share=0.3)).report

    def kill(what: str, done: int, total: int) -> None:
        if what == "training" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(str(start), data(), tmp_path / "cut", FEW, hold_out=HoldOut(share=0.3), progress=kill)
    torn = tmp_path / "cut.run" / "trainer" / "checkpoint-5"
    torn.mkdir()  # a kill while it was written
    resumed = train(str(start), data(), tmp_path / "cut", FEW, hold_out=HoldOut(share=0.3), resume=True).report
    assert resumed.losses == whole.losses
    assert resumed.systems["trained"] == whole.systems["trained"]


KILLED_AT_FIVE = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[3])
from training.test_training import FEW, data
from colbert_vespa.training import HoldOut, train

def kill(what, done, total):
    if what == "training" and done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train(sys.argv[1], data(), pathlib.Path(sys.argv[2]), FEW, hold_out=HoldOut(share=0.3), progress=kill)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_resumes_to_the_same_loss_curve(start, tmp_path):
    whole = train(str(start), data(), tmp_path / "whole", FEW, hold_out=HoldOut(share=0.3)).report
    arguments = [sys.executable, "-c", KILLED_AT_FIVE, str(start), str(tmp_path / "cut"), str(Path(__file__).parent.parent)]
    assert subprocess.run(arguments, check=False, capture_output=True).returncode == -signal.SIGKILL
    resumed = train(str(start), data(), tmp_path / "cut", FEW, hold_out=HoldOut(share=0.3), resume=True).report
    assert [step for step, _ in resumed.losses] == [1, 2, 3, 4, 5, 6]
    assert resumed.losses == whole.losses
    assert resumed.systems["trained"] == whole.systems["trained"]


@pytest.mark.slow
def test_resuming_with_other_settings_is_refused(start, tmp_path):
    train(str(start), data(), tmp_path / "out", FEW)
    other = TrainingSettings(steps=7, batch_size=4)
    with pytest.raises(UsageError, match="other data or settings"):
        train(str(start), data(), tmp_path / "out", other, resume=True)


def test_a_new_run_forgets_the_checkpoints_of_another(start, tmp_path):
    from colbert_vespa.training.running import _checkpoint
    from late_interaction.files import claim_folder

    examples = data().examples
    claim_folder(tmp_path, "training run")
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "complete").touch()
    assert _checkpoint(tmp_path, examples, FEW, resume=True) == str(tmp_path / "checkpoint-4")
    assert _checkpoint(tmp_path, examples, FEW, resume=False) is None
    assert _checkpoint(tmp_path, examples, FEW, resume=True) is None


def test_in_batch_losses_leave_out_a_querys_own_negatives():
    import torch

    from colbert_vespa.training.objectives import _first_wins, _in_batch, _own

    scores = torch.tensor([[[2.0, 9.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, -1.0]]])  # [queries, queries, documents of each]
    assert _own(scores).tolist() == [[2.0, 9.0], [3.0, -1.0]]
    rivals = torch.tensor([[2.0, 1.0, 0.0], [3.0, 0.0, 1.0]])
    assert _in_batch(scores).item() == pytest.approx(-rivals.log_softmax(1)[:, 0].mean().item())
    assert _first_wins(_own(scores)).item() == pytest.approx(-_own(scores).log_softmax(1)[:, 0].mean().item())


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["contrastive", "cached-contrastive", "colbertv2"])
def test_a_real_encoder_learns(objective, tmp_path):
    model = pytest.importorskip("exporter.hub").minilm_folder()
    settings = TrainingSettings(
        objective=objective, batch_size=4, steps=16, negatives=1, learning_rate=1e-4, document_length=24
    )
    held = HoldOut(share=0.3)
    report = train(model, data(), tmp_path / "out", settings, hold_out=held, teacher=words_in_common, dim=32).report
    losses = [loss for _, loss in report.losses]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("objective", ["contrastive", "cached-contrastive", "n-way", "kl", "margin-mse", "colbertv2"])
def test_every_objective_moves_the_model(objective, start, tmp_path):
    settings = TrainingSettings(objective=objective, batch_size=4, steps=1, warmup=0, learning_rate=1e-3, negatives=2)
    teacher = lambda pairs: [float(len(set(q.split()) & set(d.split()))) for q, d in pairs]  # noqa: E731
    done = train(str(start), data(), tmp_path / "out", settings, teacher=teacher)
    before, after = weights(start), weights(done.checkpoint)
    moved = {name for name in before if name in after and before[name].shape == after[name].shape
             and not np.array_equal(before[name], after[name])}  # fmt: skip
    assert any("linear.weight" in name for name in moved)
    assert not any("word_embeddings" in name for name in moved)  # frozen


@pytest.mark.slow
def test_the_start_is_kept_in_part(start, tmp_path):
    free = weights(train(str(start), data(), tmp_path / "free", FEW).checkpoint)
    half = dataclasses.replace(FEW, keep_start=0.5)
    mixed = weights(train(str(start), data(), tmp_path / "mixed", half).checkpoint)
    before = weights(start)
    name = next(name for name in free if name.endswith("linear.weight"))
    np.testing.assert_allclose(mixed[name], (before[name] + free[name]) / 2, atol=1e-6)


@pytest.mark.parametrize("layout", ["sentence-transformers", "pylate", "stanford"])
def test_layouts_read_back_to_the_same_vectors_and_rules(layout, start, tmp_path):
    from colbert_vespa.training.saving import save_checkpoint

    before = load_checkpoint(scan_checkpoint(start))
    save_checkpoint(before.model, tmp_path / layout, layout)
    after = load_checkpoint(scan_checkpoint(tmp_path / layout))
    assert after.layout == layout
    assert (after.rules.query.marker_id, after.rules.document.marker_id) == (
        before.rules.query.marker_id, before.rules.document.marker_id)  # fmt: skip
    assert after.rules.query.expansion.length == before.rules.query.expansion.length
    texts = ["the quick brown fox", "what is the capital of france? paris."]
    for one, two in zip(before.model.encode_document(texts, convert_to_numpy=True),
                        after.model.encode_document(texts, convert_to_numpy=True)):  # fmt: skip
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_what_a_layout_cannot_say_is_an_error(tmp_path):
    from colbert_vespa.training.saving import save_checkpoint
    from exporter.plain import make_plain_checkpoint
    from late_interaction.errors import CheckpointError

    make_plain_checkpoint(
        scan_checkpoint(checkpoints.plain(tmp_path / "plain")), tmp_path / "made", list(checkpoints.TEXTS) * 4, dim=16
    )
    model = load_checkpoint(scan_checkpoint(tmp_path / "made")).model
    with pytest.raises(CheckpointError, match="a marker for queries"):
        save_checkpoint(model, tmp_path / "out", "stanford")
    save_checkpoint(model, tmp_path / "pylate", "pylate")
    again = load_checkpoint(scan_checkpoint(tmp_path / "pylate"))
    assert (again.rules.query.marker_id, again.rules.query.expansion) == (None, None)


@pytest.mark.slow
def test_negatives_are_mined_again_by_the_model_before_each_epoch(start, tmp_path):
    settings = TrainingSettings(batch_size=4, epochs=2, learning_rate=1e-3, document_length=24, remine=True,
                                mining=MiningSettings(by=("model",), last_rank=8))  # fmt: skip
    done = train(str(start), data(), tmp_path / "out", settings)
    assert {file.name for file in (done.work / "mined").iterdir()} == {"start.jsonl", "epoch-1.jsonl"}


@pytest.mark.slow
def test_a_run_that_no_longer_gains_stops_early(start, tmp_path):
    settings = dataclasses.replace(FEW, steps=20, learning_rate=1e-9, evaluate_every=1, patience=2)
    report = train(str(start), data(), tmp_path / "out", settings, hold_out=HoldOut(share=0.3)).report
    assert report.evaluations[-1][0] < 6


def words_in_common(pairs):
    return [float(len(set(q.split()) & set(d.split()))) for q, d in pairs]


TEXTS = [f"The {a} is near the {b}. Nobody saw a {a} without its {b} so far. A {b} of number {n} was there all the time."
         for n, (a, b) in enumerate(pairwise(WORDS))]  # fmt: skip


@pytest.mark.slow
def test_adapt_makes_queries_of_documents_and_distils_a_teacher(start, tmp_path):
    settings = TrainingSettings(objective="colbertv2", batch_size=4, steps=2, negatives=2, learning_rate=1e-3)
    asked = []

    def teacher(pairs):
        asked.extend(pairs)
        return words_in_common(pairs)

    done = adapt(str(start), TEXTS, tmp_path / "out", teacher=teacher, settings=settings)
    assert asked and done.data.queries > len(TEXTS)
    assert done.data.dropped["too few negatives"] < done.data.kept  # in so few texts a teacher finds no other for some
    assert not np.array_equal(weights(done.checkpoint)["1.linear.weight"], weights(start)["1.linear.weight"])


def test_adapt_takes_few_examples(start, tmp_path):
    settings = TrainingSettings(batch_size=2, steps=2, negatives=2, learning_rate=1e-3)
    done = adapt(str(start), TEXTS, tmp_path / "out", examples=[("thread lock", TEXTS[0]), ("fox dog", TEXTS[5])],
                 settings=settings)  # fmt: skip
    assert (done.data.given, done.data.kept, done.data.documents) == (2, 2, len(TEXTS))
    with pytest.raises(UsageError, match="too short"):
        adapt(str(start), ["short"], tmp_path / "none")


@pytest.mark.slow
def test_distill_indexes_mines_scores_and_distils_in_rounds(start, tmp_path):
    mining = MiningSettings(by=("model",), last_rank=8)
    settings = TrainingSettings(objective="colbertv2", batch_size=4, steps=2, negatives=2, learning_rate=1e-3, mining=mining)
    done = distill(str(start), data(), tmp_path / "out", words_in_common, rounds=2, settings=settings)
    between = tmp_path / "out.round-1"
    one, two = weights(between), weights(done.checkpoint)
    assert not np.array_equal(one["1.linear.weight"], two["1.linear.weight"])
    with pytest.raises(UsageError, match="does not use a teacher's scores"):
        distill(str(start), data(), tmp_path / "no", words_in_common, settings=TrainingSettings())


def test_mixed_precision_needs_no_gpu(start, tmp_path):
    settings = TrainingSettings(batch_size=4, steps=1, warmup=0, learning_rate=1e-3, precision="bf16")
    done = train(str(start), data(), tmp_path / "out", settings)
    assert not np.array_equal(weights(done.checkpoint)["1.linear.weight"], weights(start)["1.linear.weight"])


def test_pooling_in_training_is_not_part_of_the_checkpoint(start, tmp_path):
    settings = TrainingSettings(batch_size=4, steps=1, pool_factor=2)
    done = train(str(start), data(), tmp_path / "out", settings)
    assert not any("Pooling" in type(module).__name__ for module in load_checkpoint(scan_checkpoint(done.checkpoint)).model)


@pytest.mark.slow
def test_a_bundle_comes_with_it(start, tmp_path):
    from late_interaction.bundle import Bundle

    train(str(start), data(), tmp_path / "out", TrainingSettings(batch_size=4, steps=1), bundle=tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").manifest.dim == 16


def test_torch_trains_where_it_is_told_to(monkeypatch):
    from colbert_vespa.training.running import trains_on_processor

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert trains_on_processor(TrainingSettings(device="cpu")) and trains_on_processor(TrainingSettings(precision="bf16"))
    assert not trains_on_processor(TrainingSettings())
    for device in ("cuda", "cuda:1", "rocm"):
        with monkeypatch.context() as patch, pytest.raises(UsageError, match=f"device {device}: the installed torch"):
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            trains_on_processor(TrainingSettings(device=device))
    with pytest.raises(UsageError, match="device openvino does not train; known: auto, cpu, cuda, rocm"):
        TrainingSettings(device="openvino")
    assert TrainingSettings(device="cuda").to_json() == TrainingSettings().to_json()
