"""A tiny model through the whole of training: curves, checkpoints, layouts, report."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="the train extra is not installed")

import checkpoints
import numpy as np

from colbert_vespa.training import HoldOut, MiningSettings, TrainingData, TrainingSettings, examples_of, train
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
    model = load_checkpoint(folder).model
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_a_run_lowers_the_loss_and_reports_before_and_after(start, tmp_path):
    done = train(str(start), data(), tmp_path / "out", FEW, hold_out=HoldOut(share=0.3))
    report = json.loads((done.work / "report.json").read_text())
    assert list(report["systems"]) == ["trained", "start", "BM25"]
    assert report["losses"][-1][1] < report["losses"][0][1]
    assert [step for step, _ in report["evaluations"]] == [0, 2, 4, 6]
    assert report["best_step"] in (2, 4, 6)
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
    resumed = train(str(start), data(), tmp_path / "cut", FEW, hold_out=HoldOut(share=0.3), resume=True).report
    assert resumed.losses == whole.losses
    assert resumed.systems["trained"] == whole.systems["trained"]


def test_resuming_with_other_settings_is_refused(start, tmp_path):
    train(str(start), data(), tmp_path / "out", FEW)
    with pytest.raises(UsageError, match="other data or settings"):
        train(str(start), data(), tmp_path / "out", TrainingSettings(steps=7, batch_size=4), resume=True)


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


def test_the_start_is_kept_in_part(start, tmp_path):
    free = weights(train(str(start), data(), tmp_path / "free", FEW).checkpoint)
    half = TrainingSettings(**{**FEW.__dict__, "keep_start": 0.5})
    mixed = weights(train(str(start), data(), tmp_path / "mixed", half).checkpoint)
    before = weights(start)
    name = next(name for name in free if name.endswith("linear.weight"))
    np.testing.assert_allclose(mixed[name], (before[name] + free[name]) / 2, atol=1e-6)


@pytest.mark.parametrize("layout", ["sentence-transformers", "pylate", "stanford"])
def test_layouts_read_back_to_the_same_vectors_and_rules(layout, start, tmp_path):
    from colbert_vespa.training.saving import save_checkpoint

    before = load_checkpoint(start)
    save_checkpoint(before.model, tmp_path / layout, layout)
    after = load_checkpoint(tmp_path / layout)
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

    make_plain_checkpoint(checkpoints.plain(tmp_path / "plain"), tmp_path / "made", list(checkpoints.TEXTS) * 4, dim=16)
    model = load_checkpoint(tmp_path / "made").model
    with pytest.raises(CheckpointError, match="a marker for queries"):
        save_checkpoint(model, tmp_path / "out", "stanford")
    save_checkpoint(model, tmp_path / "pylate", "pylate")
    again = load_checkpoint(tmp_path / "pylate")
    assert (again.rules.query.marker_id, again.rules.query.expansion) == (None, None)


def test_negatives_are_mined_again_by_the_model_before_each_epoch(start, tmp_path):
    settings = TrainingSettings(batch_size=4, epochs=2, learning_rate=1e-3, document_length=24, remine=True,
                                mining=MiningSettings(by=("model",), last_rank=8))  # fmt: skip
    done = train(str(start), data(), tmp_path / "out", settings)
    assert len(list((done.work / "mined").iterdir())) == 2


def test_pooling_in_training_is_not_part_of_the_checkpoint(start, tmp_path):
    settings = TrainingSettings(batch_size=4, steps=1, pool_factor=2)
    done = train(str(start), data(), tmp_path / "out", settings)
    assert not any("Pooling" in type(module).__name__ for module in load_checkpoint(done.checkpoint).model)


def test_a_bundle_comes_with_it(start, tmp_path):
    from late_interaction.bundle import Bundle

    train(str(start), data(), tmp_path / "out", TrainingSettings(batch_size=4, steps=1), bundle=tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").manifest.dim == 16
