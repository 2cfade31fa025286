"""A figure that is no number never passes: every place that compares what was measured with a limit is given one."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from plaid_tools import fake_bundle, passage, token_vectors

from colbert_vespa.evaluation.collection import read_qrels
from colbert_vespa.evaluation.parity.comparison import Comparison, compare_orders, row_cosines, worst_rows
from colbert_vespa.evaluation.parity.thresholds import THRESHOLDS, Check, checks_of
from colbert_vespa.monitor.baseline import Profile, drift_rows
from colbert_vespa.monitor.canaries import Canaries, Canary, compare
from colbert_vespa.monitor.limits import WarningLimits
from colbert_vespa.monitor.metrics import Figures, metric_rows
from colbert_vespa.monitor.report import OK
from colbert_vespa.training.settings import TrainingSettings
from exporter.exporting import _judge
from exporter.options import ExportOptions
from exporter.verification import ExportReport, Fidelity, Speed, fidelity_of
from late_interaction.codebook import Codebook
from late_interaction.codebook_training import train_codebook
from late_interaction.encoder import check_finite
from late_interaction.errors import BundleError, CheckpointError, CollectionError, LocalIndexError, UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex
from late_interaction.plaid.inputs import document_rows
from late_interaction.plaid.store.versions import Fit, Version
from late_interaction.recall_goal import CostedAnswer, least_effort
from late_interaction.thresholds import Thresholds, recall_of, train_thresholds
from query.types import Hit, SearchResult

NAN = math.nan
SPEED = Speed(1.0, 1.0)


def report(**precisions: tuple[float, float]) -> ExportReport:
    fidelity = {name: Fidelity(worst, mean, 1.0, 1.0, 1, SPEED) for name, (worst, mean) in precisions.items()}
    return ExportReport("test", "test", 4, 1, 1.0, (), fidelity, SPEED)


@pytest.mark.parametrize("precisions", [{"fp32": (NAN, NAN)}, {"fp32": (1.0, 1.0), "int8": (NAN, NAN)}])
def test_an_export_whose_graph_gives_none(precisions: dict) -> None:
    _judge(report(fp32=(1.0, 1.0), int8=(1.0, 1.0)), ExportOptions())
    with pytest.raises(CheckpointError, match="nan"):
        _judge(report(**precisions), ExportOptions())


def test_one_row_of_an_export_is_enough() -> None:
    rows = [np.eye(4, dtype=np.float32) for _ in range(3)]
    broken = [rows[0], rows[1].copy(), rows[2]]
    broken[1][2] = NAN
    found = fidelity_of({"query": rows, "document": broken}, {"query": rows, "document": rows}, 1, SPEED)
    assert math.isnan(found.worst) and math.isnan(found.mean)


@pytest.mark.parametrize("measure", sorted({measure for table in THRESHOLDS.values() for measure in table}))
def test_parity(measure: str) -> None:
    assert not Check("x", measure, NAN, 0.5).passed
    assert not Check("x", measure, 0.5, NAN).passed


@pytest.mark.parametrize("side", [0, 1])
def test_a_score_in_parity(side: int) -> None:
    scores = {"q1": {"a": 2.0, "b": 1.0, "c": 0.5}, "q2": {"a": 3.0, "b": 1.0}}
    broken = {"q1": scores["q1"] | {"c": NAN}, "q2": scores["q2"]}
    measured, cases = compare_orders(*((broken, scores) if side == 0 else (scores, broken)), 2)
    assert [math.isnan(measured[name]) for name in ("overlap", "tau", "score_error")] == [True, True, True]
    assert {case.what for case in cases} == {"query q1"}
    assert not any(check.passed for check in checks_of(Comparison("ranking", "a", "b", measured), {}))


def test_passages_without_rows_are_alike_in_parity() -> None:
    """Their score is minus infinity, which Vespa writes as null."""
    ours = {"q": {"a": 2.0, "b": 1.0, "c": -math.inf}}
    for theirs in (-math.inf, NAN):
        measured, _ = compare_orders(ours, {"q": ours["q"] | {"c": theirs}}, 2)
        assert (measured["overlap"], measured["score_error"]) == (1.0, 0.0)


def test_a_row_in_parity() -> None:
    good, bad = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    bad[1, 1] = NAN
    cosines = {"a": row_cosines(good, good), "b": row_cosines(good, bad)}
    assert [case.what for case in worst_rows(cosines, {})] == ["b"]


def hit(name: str, score: float) -> Hit:
    return Hit(1, name, name, score, "", "", {})


def test_a_canary() -> None:
    canary = Canary("q", (("a", 2.0), ("b", 1.0)))
    whole = SearchResult((hit("a", 2.0), hit("b", 1.0)), "centroid", 2, 2)
    assert not compare(canary, whole, 0.01)
    assert "score of a was 2.000 and is nan" in compare(
        canary, dataclasses.replace(whole, hits=(hit("a", NAN), hit("b", 1.0))), 0.01
    )
    lost = dataclasses.replace(whole, hits=(hit("a", 2.0), hit("c", NAN)))
    assert "b is no longer found" in compare(canary, lost, 0.01)
    assert compare(canary, whole, NAN)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_files_of_canaries(number: str, tmp_path: Path) -> None:
    Canaries("b", "centroid", 1, 0.01, (Canary("q", (("a", 7.25),)),)).write(tmp_path / "c.json")
    for old in ("7.25", "0.01"):
        (tmp_path / "bad.json").write_text((tmp_path / "c.json").read_text().replace(old, number))
        with pytest.raises(UsageError, match="holds no canaries"):
            Canaries.read(tmp_path / "bad.json")


PROFILE = Profile("b", 10, ("q",), (3.0, 4.0), 0.01, (0.5, 0.6), 0.7)


@pytest.mark.parametrize("change", [{"unknown": NAN}, {"nearness": NAN}, {"scores": (NAN, NAN)}])
def test_drift(change: dict) -> None:
    assert all(row.state == OK for row in drift_rows(PROFILE, PROFILE, WarningLimits()).rows)
    section = drift_rows(PROFILE, dataclasses.replace(PROFILE, **change), WarningLimits())
    assert [row.state == OK for row in section.rows].count(False) == 1
    limits = WarningLimits(**{field.name: NAN for field in dataclasses.fields(WarningLimits)})
    assert not any(row.state == OK for row in drift_rows(PROFILE, PROFILE, limits).rows)


def test_files_of_baselines(tmp_path: Path) -> None:
    PROFILE.write(tmp_path / "b.json")
    data = json.loads((tmp_path / "b.json").read_text())
    for change in ({"unknown": NAN}, {"nearness": NAN}, {"scores": [NAN]}, {"lengths": [math.inf]}):
        (tmp_path / "bad.json").write_text(json.dumps(data | change))
        with pytest.raises(UsageError, match="holds no baseline"):
            Profile.read(tmp_path / "bad.json")


FIGURES = Figures(
    ("h",), (), {name: {"g": 0.1, "h": 0.1} for name in ("memory", "disk")}, {"memory": 0.8, "disk": 0.8}, 0.0, (),
    {"h": 1.0}, {"h": 0.0}, {"h": 0.0}, {"0.95": {"g": 0.1, "h": 0.1}, "0.99": {"g": 0.1, "h": 0.1}},
)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"used": {"memory": {"g": 0.1, "h": NAN}, "disk": {"g": 0.1}}},
        {"limits": {"memory": NAN, "disk": 0.8}},
        {"above_limit": NAN},
        {"latency_s": {"0.95": {"h": 0.1}, "0.99": {"g": 0.1, "h": NAN}}},
        {"degraded": {"h": NAN}},
        {"failed": {"h": NAN}},
    ],
)
def test_metrics(change: dict) -> None:
    assert all(row.state == OK for row in metric_rows(FIGURES, WarningLimits()).rows)
    rows = metric_rows(dataclasses.replace(FIGURES, **change), WarningLimits()).rows
    assert any(row.state != OK for row in rows), rows


def test_codebooks_and_thresholds() -> None:
    book = train_codebook(np.tile(np.eye(4, dtype=np.float32), (20, 1)), bits=1)
    whole = {"cells": book.centroids, "cutoffs": book.cutoffs, "weights": book.weights}
    for name, array in whole.items():
        broken = array.copy()
        broken[0, 0] = NAN
        with pytest.raises(ValueError, match="finite"):
            Codebook(**whole | {name: broken}, bits=book.bits)
    with pytest.raises(ValueError, match="unit"):
        dataclasses.replace(book, unit=NAN)
    with pytest.raises(ValueError, match="finite"):
        train_codebook(np.full((10, 4), NAN, np.float32))
    with pytest.raises(ValueError, match="finite"):
        Thresholds(np.zeros(4, np.float32), np.array([1, NAN, 1, 1], np.float32))
    assert recall_of is not None and train_thresholds([np.eye(4, dtype=np.float32)]) is None


def test_a_codebook_of_a_bundle(tmp_path: Path) -> None:
    book = train_codebook(np.tile(np.eye(16, dtype=np.float32), (20, 1)), bits=1)
    np.savez(tmp_path / "bad.npz", centroids=book.centroids * NAN, cutoffs=book.cutoffs, weights=book.weights, bits=np.int32(1))
    with pytest.raises(BundleError, match="bad.npz is not a codebook, or is damaged: centroids must be finite"):
        Codebook.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("codec", ["residual", "float32", "binary"])
@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_vectors_that_enter_an_index(codec: str, value: float, tmp_path: Path) -> None:
    rows = np.eye(16, dtype=np.float32)[:3]
    rows[1, 1] = value
    with pytest.raises(UsageError, match="must be finite"):
        document_rows("x", rows, 16, codec)
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}), codec=codec)
    with index.writer() as writer:
        with pytest.raises(UsageError, match="must be finite"):
            writer.put(passage("d"), rows)
        writer.put(passage("e"), token_vectors(np.random.default_rng(0), 1)[0])
        writer.commit()
    assert [p.document_id for p in index.iter_passages()] == ["e"]
    with pytest.raises(UsageError, match="must be finite"):
        index.search(rows, 1)


def test_a_version_of_an_index(tmp_path: Path) -> None:
    index = LocalIndex.create(tmp_path / "i", bundle=fake_bundle(tmp_path / "b"), schema=MetadataSchema({}))
    for fit in (Fit(NAN, 0.5), Fit(0.5, NAN), Fit(math.inf, 0.5)):
        text = dataclasses.replace(index.snapshot.version, fit=fit).to_json()
        with pytest.raises(LocalIndexError, match="must be a finite number"):
            Version.from_json(text, "x")


def test_a_graph_that_gives_none(tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path / "b")
    check_finite([np.zeros((2, 4), np.float32), np.zeros((0, 4), np.float32)], bundle)
    for value in (NAN, math.inf):
        with pytest.raises(BundleError, match="vectors that are not finite"):
            check_finite([np.zeros((2, 4), np.float32), np.full((1, 4), value, np.float32)], bundle)


def test_goals_of_recall() -> None:
    with pytest.raises(UsageError, match="recall must be"):
        least_effort([[1]], lambda effort: [CostedAnswer(["a"], 1.0)], [["a"]], NAN)


@pytest.mark.parametrize(
    "name", ["epochs", "learning_rate", "scale", "temperature", "distillation_weight", "warmup", "keep_start"]
)
@pytest.mark.parametrize("value", [NAN, math.inf])
def test_settings_of_training(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_judgements(value: str, tmp_path: Path) -> None:
    for first in ("", "q1\td1\t1\n", "query-id\tcorpus-id\tscore\n"):
        (tmp_path / "qrels.tsv").write_text(f"{first}q1\td2\t{value}\n")
        with pytest.raises(CollectionError, match=r"qrels.tsv:\d: expected query-id"):
            read_qrels(tmp_path / "qrels.tsv")
