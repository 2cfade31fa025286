"""`candidates`: recall and work of each way on a sample, the cheapest that reaches the goal, and a bundle that has it."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from dense_bundles import made_bundle
from ready import ready_bundle
from vespa_bundles import small_codebook

from colbert_vespa.cli.choosing import ChoiceOptions, record_choice
from colbert_vespa.cli.console import Output
from colbert_vespa.cli.exporting import export_bundle
from colbert_vespa.evaluation.candidates import (
    PROBES,
    choice_of,
    exact_best,
    measure_candidates,
    plot_candidates,
    sampled_rows,
    spans,
)
from colbert_vespa.evaluation.recall import RecallGoal
from exporter import ExportOptions
from late_interaction.bundle import Bundle, MeasuredCandidates
from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from late_interaction.maxsim import maxsim
from late_interaction.metadata import MetadataSchema
from late_interaction.one_vector.lemur import Lemur
from late_interaction.one_vector.mean import MeanVector
from vespa_app import default_settings
from vespa_app.candidates.centroid import list_weights
from vespa_app.settings import OneVectorSettings

DIM = 16
WORDS = (
    "thread lock file path json number list sort parse option random mean socket wait split join text byte queue call".split()
)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def passages(count, seed=0):
    random = np.random.default_rng(seed)
    topics = np.random.default_rng(1).standard_normal((40, DIM))
    return [
        unit(topics[random.choice(40, 3)][random.integers(0, 3, random.integers(3, 12))] + 0.5 * random.standard_normal(DIM))
        for _ in range(count)
    ]


STORED, ASKED = passages(300), passages(12, seed=5)


@pytest.fixture(scope="module")
def encodings():
    return {"mean": MeanVector(DIM), "lemur 32": Lemur.fit(STORED, dim=32)}


@pytest.fixture(scope="module")
def report(encodings):
    return measure_candidates(STORED, ASKED, RecallGoal(10, 0.9), encodings, small_codebook(DIM))


def test_every_way_finds_more_the_more_it_reranks_and_at_last_all(report):
    assert list(report.ways) == ["mean", "lemur 32", "centroid 8", "centroid 16"]  # of 16 centroids
    for points in report.ways.values():
        recalls, work = [point.recall for point in points], [point.work for point in points]
        assert recalls == sorted(recalls) and work == sorted(work) and recalls[-1] == 1.0
    assert report.passages == 300 and report.queries == 12 and set(report.bytes) == set(report.ways)


def test_recall_is_of_the_exact_best(report, encodings):
    for query, best in zip(ASKED, exact_best(STORED, ASKED, 10), strict=True):
        scores = [float(maxsim(query, rows)) for rows in STORED]
        assert best == set(np.argsort(-np.array(scores), kind="stable")[:10].tolist())
    mean = encodings["mean"]
    found = []
    for query, best in zip(ASKED, exact_best(STORED, ASKED, 10), strict=True):
        order = np.argsort(-(mean.passages(STORED) @ mean.query(query)), kind="stable")
        found.append(len(best & set(order[:50].tolist())) / 10)
    assert report.ways["mean"][0].recall == pytest.approx(np.mean(found))


def test_centroids_are_scored_as_their_weighted_sets_are(report):
    book, found = small_codebook(DIM), []
    sets = [set(book.assign_near(rows).tolist()) for rows in STORED]
    for query, best in zip(ASKED, exact_best(STORED, ASKED, 10), strict=True):
        ids, _, gains = book.lookup.lists(query, 8)
        scores = np.zeros(len(STORED))
        for row, weights in zip(ids.tolist(), list_weights(gains).tolist(), strict=True):
            asked = dict(zip(row, weights, strict=True))
            scores += [max((asked[code] for code in own if code in asked), default=0) for own in sets]
        found.append(len(best & set(np.argsort(-scores, kind="stable")[:50].tolist())) / 10)
    assert report.ways["centroid 8"][0].recall == pytest.approx(np.mean(found))


def test_the_cheapest_that_reaches_the_goal_is_chosen(report, encodings):
    reached = [point for point in report.points if point.recall >= 0.9]
    assert report.best == min(reached, key=lambda point: point.work)
    for way, points in report.ways.items():
        assert report.least(way) == next(point for point in points if point.recall >= 0.9)
    chosen = choice_of(report, encodings)
    assert chosen.recall == round(report.best.recall, 4) and chosen.rerank == report.best.rerank and not chosen.fault()
    none = measure_candidates(STORED, ASKED, RecallGoal(10, 1.0), {"mean": MeanVector(DIM)})
    assert none.best is not None  # 1.0 where all are reranked
    assert choice_of(none, {"mean": MeanVector(DIM)}) == MeasuredCandidates("pooled", none.best.rerank, 1.0, 1.0, "mean")


@pytest.mark.parametrize(("stored", "asked"), [(STORED[:10], ASKED), (STORED, []), (STORED, [np.zeros((0, DIM), np.float32)])])
def test_too_few_passages_or_queries_are_refused(stored, asked):
    with pytest.raises(UsageError):
        measure_candidates(stored, asked, RecallGoal(), {"mean": MeanVector(DIM)})


def test_what_stands_for_queries_is_seeded():
    texts = [" ".join(np.random.default_rng(n).choice(WORDS, 30)) for n in range(5)]
    assert spans(texts, 20, 3) == spans(texts, 20, 3) != spans(texts, 20, 4)
    assert all(4 <= len(span.split()) <= 12 and any(span in text for text in texts) for span in spans(texts, 20, 3))
    rows = sampled_rows(STORED, 5, 3)
    assert all((a == b).all() for a, b in zip(rows, sampled_rows(STORED, 5, 3), strict=True))
    assert all(1 <= len(own) <= 8 for own in rows)


def test_the_curve_is_drawn(report, tmp_path):
    plot_candidates(report, tmp_path / "curve.svg")
    assert "multiply-adds" in (tmp_path / "curve.svg").read_text() or (tmp_path / "curve.svg").stat().st_size > 10_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle, and a sample of 120 documents."""
    root = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(2)
    lines = [json.dumps({"id": f"d{n}", "text": " ".join(random.choice(WORDS, 12))}) for n in range(120)]
    (root / "sample.jsonl").write_text("\n".join(lines))
    return made_bundle(root / "bundle", DIM, words=" ".join(WORDS)), root / "sample.jsonl"


def test_the_command_measures_and_changes_nothing(cli, made):
    bundle, sample = made
    done = cli("candidates", str(bundle.path), "--sample", str(sample), "--dim", "16", "--count", "20", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bundle"] is None and result["passages"] == 120 and result["queries"] == 20
    assert {point["way"] for point in result["points"]} == {"mean", "lemur 16"}
    assert Bundle.open(bundle.path).sha256 == bundle.sha256


def test_the_command_writes_a_bundle_with_the_choice(cli, made, tmp_path):
    bundle, sample = made
    output, plot = tmp_path / "chosen", tmp_path / "curve.svg"
    done = cli(
        "candidates", str(bundle.path), "--sample", str(sample), "--dim", "16", "--count", "20", "--goal", "recall@5=0.9",
        "-o", str(output), "--plot", str(plot),
    )  # fmt: skip
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "recall@5" in line or line.startswith(("mean", "lemur")))
    written = Bundle.open(output)
    measured = written.manifest.candidates
    assert measured.strategy == "pooled" and measured.goal == 0.9 and measured.recall >= 0.9 and plot.is_file()
    settings = default_settings(written, MetadataSchema({}))
    assert settings.candidates[0] == "pooled" and settings.rerank == measured.rerank
    wanted = OneVectorSettings("lemur", 16, "int8") if measured.encoding == "lemur" else OneVectorSettings()
    assert settings.one_vector == wanted
    assert Bundle.open(bundle.path).sha256 == bundle.sha256 != written.sha256


def ready_sample(path, broken=None):
    """60 documents with vectors of four dimensions; one of `broken` has a number that is none."""
    with path.open("w") as lines:
        for number, rows in enumerate(passages(60)):
            vectors = unit(rows[:3, :4]).tolist()
            if number == broken:
                vectors[0][1] = float("nan")
            lines.write(json.dumps({"id": f"d{number}", "vectors": vectors}) + "\n")
    return str(path)


def test_a_sample_of_ready_vectors(cli, tmp_path):
    """Rows of passages stand for queries, because the bundle has no model."""
    bundle, sample = ready_bundle(tmp_path / "b", dim=4), ready_sample(tmp_path / "sample.jsonl")
    given = ("candidates", str(bundle.path), "--dim", "4", "--count", "9", "--goal", "recall@5=0.9")
    done = cli(*given, "--sample", sample, "-o", str(tmp_path / "chosen"), "--json")
    assert json.loads(done.stdout.splitlines()[-1])["queries"] == 9
    assert "of the sample's passages" in done.stderr  # 50 of 60
    assert Bundle.open(tmp_path / "chosen").manifest.candidates.recall >= 0.9
    assert "--queries" in cli(*given, "--sample", sample, "--queries", sample, code=2).stderr
    broken = ready_sample(tmp_path / "broken.jsonl", broken=7)
    refused = cli(*given, "--sample", broken, "-o", str(tmp_path / "none"), code=1)
    assert "broken.jsonl" in refused.stderr or "'d7'" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_a_goal_that_nothing_reaches_writes_no_bundle(cli, made, tmp_path, monkeypatch):
    monkeypatch.setattr("colbert_vespa.evaluation.candidates.RERANKS", (5,))
    bundle, sample = made
    given = ("candidates", str(bundle.path), "--sample", str(sample), "--dim", "16", "--count", "20")
    done = cli(*given, "--goal", "recall@5=1", "-o", str(tmp_path / "none"), code=1)
    assert "no bundle was written" in done.stderr and not (tmp_path / "none").exists()
    assert "nothing reaches" in cli(*given, "--goal", "recall@5=1").stdout


def test_queries_of_the_user_and_what_is_too_small(cli, made, tmp_path):
    bundle, sample = made
    (tmp_path / "queries.jsonl").write_text('{"id": "a", "text": "wait for a thread"}\n{"id": "b", "text": "sort a list"}\n')
    done = cli(
        "candidates",
        str(bundle.path),
        "--sample",
        str(sample),
        "--queries",
        str(tmp_path / "queries.jsonl"),
        "--dim",
        "2000",
        "--json",
    )
    assert json.loads(done.stdout.splitlines()[-1])["queries"] == 2
    assert "lemur 2000 is left out" in done.stderr
    (tmp_path / "few.jsonl").write_text('{"id": "a", "text": "wait"}\n')
    assert (
        "1 passages"
        in cli("candidates", str(bundle.path), "--sample", str(tmp_path / "few.jsonl"), "--dim", "16", code=2).stderr
    )
    assert "--goal" in cli("candidates", str(bundle.path), "--sample", str(sample), "--goal", "all", code=2).stderr


@pytest.mark.parametrize("lines", ["", '{"id": "a", "text": "thread lock"}\n'])
def test_a_sample_too_small_for_the_goal_is_refused_before_anything_is_fitted(cli, made, tmp_path, lines):
    (tmp_path / "few.jsonl").write_text(lines)
    told = cli("candidates", str(made[0].path), "--sample", str(tmp_path / "few.jsonl"), code=2)
    assert "recall@10" in told.stderr
    assert "lemur" not in told.stderr


def test_probes_are_those_that_the_codebook_has():
    assert all(probes <= 64 for probes in PROBES)


def test_export_records_the_choice_in_the_bundle_itself(made, tmp_path):
    bundle, sample = made
    (tmp_path / "copy").mkdir()
    bundle.copy_to(tmp_path / "copy")
    texts = [json.loads(line)["text"] for line in sample.read_text().splitlines()]
    options = ChoiceOptions(RecallGoal(5, 0.5), count=20, dims=(16,))
    copy = Bundle.open(tmp_path / "copy")
    record_choice(Output(json_output=True), copy, Encoder(copy), texts, options)
    measured = Bundle.open(tmp_path / "copy").manifest.candidates
    assert measured.goal == 0.5 and measured.recall >= 0.5 and measured.strategy == "pooled"


@pytest.fixture
def exported(made, monkeypatch):
    """`export` copies the bundle, and each text that is encoded is listed."""
    texts, encode = [], Encoder.encode_documents

    def copied(_checkpoint, folder, _options, progress):
        folder.mkdir()
        made[0].copy_to(folder)
        return SimpleNamespace(to_json=dict)

    def listed(self, part, rows=None):
        texts.extend(part)
        return encode(self, part, rows)

    monkeypatch.setattr("colbert_vespa.cli.exporting.export", copied)
    monkeypatch.setattr(Output, "export_report", lambda *_: None)
    monkeypatch.setattr(Encoder, "encode_documents", listed)
    return texts


def test_export_encodes_each_text_of_the_sample_once(made, tmp_path, exported):
    goal, output = RecallGoal(5, 0.5), tmp_path / "b"
    result = export_bundle(Output(json_output=True), "none", output, ExportOptions(), made[1], goal=goal)
    assert sorted(exported) == sorted(json.loads(line)["text"] for line in made[1].read_text().splitlines())
    written = Bundle.open(output)
    assert result["candidates"] == dataclasses.asdict(written.manifest.candidates) and result["candidates"]["goal"] == 0.5
    assert "residual" in written.manifest.codebooks
    assert {path.name for path in output.iterdir() if path.is_dir()} == {"codebooks"}


def test_export_keeps_the_bundle_where_nothing_reaches_the_goal(made, tmp_path, exported, monkeypatch, capsys):
    monkeypatch.setattr("colbert_vespa.evaluation.candidates.RERANKS", (5,))
    goal, output = RecallGoal(5, 1.0), tmp_path / "b"
    result = export_bundle(Output(json_output=True), "none", output, ExportOptions(), made[1], goal=goal)
    assert result["candidates"] is None and Bundle.open(output).manifest.candidates is None
    assert "nothing reaches recall@5 1" in capsys.readouterr().err


def test_export_measures_candidates_on_a_sample_alone(cli, tmp_path):
    done = cli("export", "no/such", "-o", str(tmp_path / "b"), "--candidates-goal", "recall@10=0.9", code=2)
    assert "--sample" in done.stderr
    (tmp_path / "few.jsonl").write_text('{"id": "a", "text": "thread lock"}\n')
    few = ("--sample", str(tmp_path / "few.jsonl"), "--candidates-goal", "recall@10=0.9")
    assert (
        "recall@10" in cli("export", "no/such", "-o", str(tmp_path / "b"), *few, code=2).stderr
    )  # before the checkpoint is read
    wrong = cli("export", "no/such", "-o", str(tmp_path / "b"), "--sample", "x", "--candidates-goal", "recall@10=2", code=2)
    assert "--candidates-goal" in wrong.stderr and "recall@10=2" in wrong.stderr


def test_the_copy_is_not_written_into_the_bundle_itself(cli, made):
    bundle, sample = made
    given = ("candidates", str(bundle.path), "--sample", str(sample), "--dim", "16", "--count", "20", "--goal", "recall@5=0.5")
    done = cli(*given, "-o", str(bundle.path / "inside"), code=2)
    assert "inside" in done.stderr and not (bundle.path / "inside").exists()
