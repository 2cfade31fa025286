"""What benchmarks.engines makes of its runs: the data that engines are given, recall, equal-recall latency, the table."""

import ast
import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import engine_data, engines
from benchmarks.engine_peers import ENGINES, cause, variables
from benchmarks.engine_report import fastest, figures, table
from benchmarks.engine_runs import common
from late_interaction.maxsim import maxsim_many

BUILT = {"seconds": 2.0, "peak_rss_mb": 10.0}


def searched(ids, ms=(1.0, 3.0), **more):
    return {"ids": ids, "ms": list(ms), "cpu_s": 0.004, "peak_rss_mb": 20.0, "bytes_per_token": 70.0, **more}


TRUTH = [list(range(10)), list(range(10, 20))]
HALF = [[*range(5), *range(100, 105)], list(range(10, 20))]  # 5 and 10 of ten: .75
MOST = [[*range(9), 100], list(range(10, 20))]  # .95


@pytest.fixture
def data_folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    engine_data.write_synthetic(data, 300)
    return data


def test_an_effort_counts_at_the_recall_it_has():
    efforts = [
        {"effort": {"n": 1}, "ids": HALF, "ms": [0.2], "cpu_s": 0.001},
        {"effort": {"n": 2}, "ids": MOST, "ms": [5.0], "cpu_s": 0.001},
    ]
    row = figures(BUILT, searched(TRUTH, (8.0, 8.0), efforts=efforts), TRUTH)
    assert [row["recall_at_10"], row["ms_at_95"], row["ms_at_98"]] == [1.0, 5.0, 8.0]
    assert [row["cpu_at_95"], row["cpu_at_98"]] == [1.0, 2.0]
    assert [(e["recall_at_10"], e["p50_ms"]) for e in row["efforts"]] == [(0.75, 0.2), (0.95, 5.0)]


def test_a_recall_that_no_effort_reaches_has_no_latency():
    assert fastest([{"recall_at_10": 0.979, "p50_ms": 1.0}], "p50_ms", 0.98) is None
    row = figures(BUILT, searched(HALF), TRUTH)
    assert row["ms_at_95"] is None
    result = {"collection": "c", "passages": 2, "token_vectors": 9, "engines": {"slow": row}, "unavailable": {}}
    assert "| slow | 0.75 | 1.0 | 3.0 | 2.0 | - | - | - | - |" in table(result)


def test_without_the_truth_there_is_no_recall():
    row = figures(BUILT, searched(TRUTH), None)
    assert "recall_at_10" not in row
    assert row["ms_at_95"] is None


def test_the_table_lists_efforts_by_speed_and_peers_that_are_not_there():
    efforts = [
        {"effort": {"probes": 8, "rerank": 9}, "ids": TRUTH, "ms": [9.0], "cpu_s": 0.001},
        {"effort": {"probes": 1}, "ids": HALF, "ms": [1.0], "cpu_s": 0.001},
    ]
    row = figures(BUILT, searched(MOST, (4.0, 4.0), efforts=efforts, efforts_left_out=2), TRUTH)
    engines_found = {"ours": row, "plain": figures(BUILT, searched(TRUTH, one_pass=True), TRUTH)}
    result = {
        "collection": "c",
        "passages": 2,
        "token_vectors": 9,
        "engines": engines_found,
        "unavailable": {"peer": "no cargo"},
    }
    text = table(result)
    steps = [
        "| ours | probes 1 | 0.75 | 1.0 |",
        "| ours | defaults | 0.95 | 4.0 |",
        "| ours | probes 8, rerank 9 | 1.0 | 9.0 |",
    ]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    assert "| peer | not measured: no cargo |" in text
    assert "2 of its efforts left out" in text
    assert "plain: all queries in one pass" in text


def test_engines_are_compared_at_equal_recall_by_processor_time():
    efforts = [
        {"effort": {"n": 1}, "ids": MOST, "ms": [9.0], "cpu_s": 0.004},
        {"effort": {"n": 2}, "ids": MOST, "ms": [2.0], "cpu_s": 0.006},
        {"effort": {"n": 3}, "ids": TRUTH, "ms": [3.0], "cpu_s": 0.009},
    ]
    found = {
        "ours": figures(BUILT, searched(HALF, efforts=efforts), TRUTH),
        "peer": figures(BUILT, searched(HALF), TRUTH),
        "lost": figures(BUILT, searched(HALF), None),
    }
    text = table({"collection": "c", "passages": 2, "token_vectors": 9, "engines": found, "unavailable": {}})
    assert "| ours | 0.95 | n 1 | 0.95 | 4.0 | 9.0 |" in text
    assert "| ours | 0.98 | n 3 | 1.0 | 9.0 | 3.0 |" in text
    assert "| peer | 0.95, not reached | defaults | 0.75 | 2.0 | 1.0 |" in text
    assert "| peer | 0.98, not reached | defaults | 0.75 | 2.0 | 1.0 |" in text
    assert text.count("| lost |") == 1


BUILDS = """
import json, pathlib, sys, time
while sys.argv[1] == "build" and time.process_time() < 0.2: pass
pathlib.Path(sys.argv[3]).mkdir(exist_ok=True)
pathlib.Path(sys.argv[4]).write_text(json.dumps({"seconds": 9, "peak_rss_mb": 1, "efforts": []}))
"""


def test_the_processor_time_of_a_build_is_kept_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "program", lambda _: [sys.executable, "-c", BUILDS])
    bench = engines.Bench(tmp_path, 1, 1, 10)
    built, _ = bench.run(ENGINES["exact"])
    assert built["seconds"] == 9
    assert 0.2 <= built["cpu_s"] < 9
    assert bench.run(ENGINES["exact"])[0] == built
    row = figures({**BUILT, "cpu_s": 3.21}, searched(TRUTH), TRUTH)
    assert row["build_cpu_s"] == 3.2


def test_an_engine_is_told_its_efforts():
    told = variables(ENGINES["tachiom"], 1, {})
    assert json.loads(told["EFFORTS"]) == [dict(effort) for effort in ENGINES["tachiom"].efforts]


def test_the_reason_of_a_failed_build_is_the_innermost_error():
    said = "error: Failed to build `a`\n  fatal: unable to access 'https://host/': no host\n  error: no kannolo\n\nhint: look\n"
    assert cause(said) == "fatal: unable to access 'https://host/': no host"
    assert (
        cause("error: Failed to build `a`\n   error[E0554]: not on the stable channel\n")
        == "error[E0554]: not on the stable channel"
    )
    assert cause("error: Failed to build `a`\nhint: look\n") == "error: Failed to build `a`"
    assert cause("because a has no version 3\n") == "because a has no version 3"
    assert cause("") == ""


def test_made_up_passages_are_the_same_each_time_and_near_their_words(data_folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    counts = engine_data.write_synthetic(again, 300)
    assert counts == {"passages": 300, "token_vectors": 9_600, "queries": 100}
    assert all((again / file.name).read_bytes() == file.read_bytes() for file in data_folder.iterdir())
    vectors, ids = np.load(again / "vectors.npy"), np.load(again / "token_ids.npy")
    assert (vectors.dtype, ids.dtype, len(ids)) == (np.float16, np.uint32, len(vectors))
    word = int(np.bincount(ids).argmax())
    similarities = vectors[ids == word].astype(np.float32) @ vectors[ids == word][0].astype(np.float32)
    assert similarities.mean() > 0.5 > (vectors[ids != word].astype(np.float32) @ vectors[ids == word][0]).mean()


def test_made_up_passages_that_do_not_fit_the_disk_are_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_data.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(SystemExit, match="GB of disk"):
        engine_data.write_synthetic(tmp_path, 1_000)
    assert not list(tmp_path.iterdir())


def test_repeated_passages_have_the_words_of_the_first_and_rows_of_these_words(data_folder, monkeypatch):
    monkeypatch.setattr(engine_data, "ROW_BLOCK", 1_000)
    base, ids = np.load(data_folder / "vectors.npy"), np.load(data_folder / "token_ids.npy")
    assert engine_data.repeat(data_folder, 3) == {"passages": 900, "token_vectors": 28_800, "queries": 100}
    vectors, offsets = np.load(data_folder / "vectors.npy").astype(np.float32), np.load(data_folder / "offsets.npy")
    assert np.array_equal(vectors[: len(base)], base)
    assert np.array_equal(np.load(data_folder / "token_ids.npy"), np.tile(ids, 3))
    assert offsets.tolist() == list(range(0, 28_801, 32))
    second = vectors[len(base) : 2 * len(base)]
    assert not np.array_equal(second, vectors[2 * len(base) :])
    assert np.allclose(np.linalg.norm(second, axis=1), 1, atol=0.01)
    often = np.bincount(ids)[ids] > 10
    similarity = (second * base).sum(axis=1)[often]
    assert 0.4 < (similarity < 0.98).mean() < 0.5  # a half, less those that are swapped with themselves
    words = [int(word) for word in np.flatnonzero(np.bincount(ids) > 20)[:5]]
    for word in words:
        assert ((second[ids == word] @ base[ids == word].astype(np.float32).T).max(axis=1) > 0.98).all()


def test_a_collection_keeps_the_word_of_each_row(tmp_path, monkeypatch):
    rows = [np.eye(3, 4, dtype=np.float32), np.eye(2, 4, dtype=np.float32)]
    queries = [("a", np.eye(2, 4, dtype=np.float32)), ("", np.empty((0, 4), np.float32))]
    ids = [np.arange(5, 8, dtype=np.uint32), np.array([7, 9], np.uint32)]
    collection = SimpleNamespace(
        bundle=SimpleNamespace(manifest=SimpleNamespace(dim=4)),
        blocks=lambda: [(["d1"], rows[:1]), (["d2"], rows[1:])],
        token_ids=lambda: (ids, [np.array([5, 6], np.uint32), np.empty(0, np.uint32)]),
        queries=queries,
    )
    monkeypatch.setattr(engine_data, "open_collection", lambda *_, **__: nullcontext(collection))
    assert engine_data.write_collection(tmp_path, "c", quick=False) == {"passages": 2, "token_vectors": 5, "queries": 1}
    assert np.load(tmp_path / "token_ids.npy").tolist() == [5, 6, 7, 7, 9]
    assert np.load(tmp_path / "query_token_ids.npy").tolist() == [5, 6]
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), np.concatenate(rows))


def test_vectors_are_read_by_passage_in_float32(data_folder):
    data = common.Data(data_folder)
    stored = np.load(data_folder / "vectors.npy").astype(np.float32)
    assert np.array_equal(data.passage(7), stored[7 * 32 : 8 * 32])
    assert np.array_equal(data.vectors(), stored)


def test_one_pass_finds_what_all_at_once_does(data_folder, monkeypatch):
    monkeypatch.syspath_prepend(str(engines.ROOT / "benchmarks" / "engine_runs"))
    import run_exact

    monkeypatch.setattr(run_exact, "BLOCK", 37)
    data = common.Data(data_folder)
    found = run_exact.one_pass(data)
    lengths = np.diff(data.offsets)
    wanted = [np.argsort(-maxsim_many(Q, data.vectors(), lengths), kind="stable")[:10].tolist() for Q in data.queries]
    assert found["ids"] == wanted


def test_efforts_are_timed_after_the_defaults_until_time_is_up(data_folder, monkeypatch):
    monkeypatch.setenv("EFFORTS", json.dumps([{"n": 3}, {"n": 4}]))
    asked = []

    def opening():
        return lambda effort: lambda Q: [asked.append(effort) or len(effort)]

    data = common.Data(data_folder)
    found = common.timed_search(data, opening, lambda: {"so_far": len(asked)})
    assert [effort["effort"] for effort in found["efforts"]] == [{"n": 3}, {"n": 4}]
    assert found["ids"] == [[0]] * 100
    assert found["efforts"][1]["ids"] == [[1]] * 100
    assert found["so_far"] == 100 + common.WARM_UP + 1
    monkeypatch.setattr(common, "LADDER_S", 0)
    assert common.timed_search(data, opening)["efforts"] == []


OURS = {"run_exact.py", "run_ours.py"}
PEERS = [file for file in sorted((engines.ROOT / "benchmarks" / "engine_runs").glob("*.py")) if file.name not in OURS]


@pytest.mark.parametrize("file", PEERS, ids=lambda file: file.name)
def test_what_runs_in_a_peers_environment_imports_nothing_of_ours(file):
    imported = [node.module for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.startswith(("late_interaction", "colbert_vespa", "benchmarks"))]


def test_of_a_million_passages_ours_alone_is_run_unless_asked(monkeypatch):
    monkeypatch.setattr("sys.argv", ["engines", "--collection", "synthetic-1m"])
    assert engines._chosen(engines._options()) == ["exact", "ours"]
    monkeypatch.setattr("sys.argv", ["engines", "--collection", "synthetic-1m", "--engine", "tachiom"])
    assert engines._chosen(engines._options()) == ["exact", "tachiom"]
