"""A collection that brings its vectors: measured and compared without a model."""

import json
import shutil

import pytest
from ready import ready_bundle, unit_rows

from colbert_vespa.cli.commands import main
from colbert_vespa.evaluation.collection import read_collection
from colbert_vespa.evaluation.evaluating import Judged, evaluate
from colbert_vespa.evaluation.parity.run import compare_all
from colbert_vespa.evaluation.parity.texts import sample_texts
from feeder import FeedOptions, feed, open_sources
from late_interaction.errors import CollectionError, UsageError
from late_interaction.plaid import Storage
from late_interaction.ready_rows import packed_array
from query import Client

PAGES = [unit_rows(6, n) for n in range(40)]


def written(folder, *, texts):
    folder.mkdir()
    words = ["red apple", "green pear", "blue plum"]
    corpus = [{"id": f"d{n}", "vectors": packed_array(D)} for n, D in enumerate(PAGES)]
    queries = [{"id": f"q{n}", "vectors": PAGES[n][:4].tolist()} for n in range(8)]
    for n, record in enumerate([*corpus, *queries] if texts else []):
        record["text"] = words[n % 3]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(8)))
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return ready_bundle(tmp_path_factory.mktemp("without") / "bundle")


@pytest.fixture(scope="module")
def index(tmp_path_factory, bundle):
    folder = tmp_path_factory.mktemp("without")
    source = open_sources([str(written(folder / "collection", texts=True))])[0]
    feed(source, FeedOptions(to=folder / "index", bundle=bundle, journal=folder / "j", storage=Storage("float32")))
    return folder / "index"


@pytest.mark.parametrize("texts", [True, False])
def test_quality_and_recall(tmp_path, index, texts):
    judged = Judged.read(written(tmp_path / "collection", texts=texts))
    assert (len(judged.documents), len(judged.queries), judged.ready) == (40, 8, True)
    with Client(index) as client:
        found = evaluate(client, judged, None)
    assert (found.measured["ndcg_at_10"], found.recall_at_10) == (1.0, 1.0)
    assert set(found.baselines) == ({"bm25", "hybrid"} if texts else set())


def test_the_command_evaluates_it(tmp_path, index, capsys):
    collection = written(tmp_path / "collection", texts=True)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--from", str(index), "--collection", str(collection), "--json"])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["recall_queries"] == 8


def test_the_curve_of_recall_and_tuning_need_no_model(tmp_path, index, capsys):
    collection = written(tmp_path / "collection", texts=False)
    shutil.copytree(index, tmp_path / "index")
    for arguments in (
        ["evaluate", "--from", str(index), "--collection", str(collection), "--recall", "--json"],
        ["index", "tune", str(tmp_path / "index"), "--json"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
        assert json.loads(capsys.readouterr().out.splitlines()[-1])


def test_parity_compares_what_is_stored_with_what_was_brought(tmp_path, index, bundle):
    collection = written(tmp_path / "collection", texts=False)
    report = compare_all(bundle, sample_texts(collection, None, None, 20, 8), [str(index)])
    assert not report.failed
    measured = {comparison.layer: comparison.measured for comparison in report.comparisons}
    assert measured["codec"]["worst_cosine"] == pytest.approx(1, abs=1e-6) and measured["codec"]["rows_equal"] == 1
    assert {"codec", "candidates", "answers"} <= measured.keys()
    for more in ({}, {"addresses": [str(index)], "checkpoint": "anything"}):
        with pytest.raises(UsageError, match="only stored vectors can be compared"):
            compare_all(bundle, sample_texts(collection, None, None, 20, 8), **more)
    with pytest.raises(UsageError, match="give queries with vectors"):
        compare_all(bundle, sample_texts(None, None, None, 20, 8), [str(index)])
    (tmp_path / "other.jsonl").write_text(json.dumps({"id": "x", "text": "x"}))
    lacking = sample_texts(collection, tmp_path / "other.jsonl", None, 20, 8)
    with pytest.raises(UsageError, match="whose vectors were made elsewhere"):
        compare_all(bundle, lacking, [str(index)])


def test_rows_of_a_query_that_cannot_be_are_told_by_line(tmp_path):
    folder = written(tmp_path / "collection", texts=False)
    (folder / "queries.jsonl").write_text(json.dumps({"id": "q", "vectors": [packed_array(PAGES[0])] * 2}))
    with pytest.raises(CollectionError, match=r"queries\.jsonl:1: vectors must be rows \[q, d\]"):
        read_collection(folder)


def test_weights_are_fitted_to_queries_that_bring_rows(tmp_path, index, bundle, capsys):
    collection = written(tmp_path / "collection", texts=True)
    for arguments, message in (
        (["--from", str(index), "--fit"], "8 judged queries are too few"),
        (["--bundle", str(bundle.path), "--tradeoffs"], "--tradeoffs encodes the collection"),
    ):
        with pytest.raises(SystemExit):
            main(["evaluate", "--collection", str(collection), *arguments])
        assert message in capsys.readouterr().err


def test_what_needs_a_model_says_so(index):
    with Client(index) as client, pytest.raises(UsageError, match="has no model to encode it"):
        _ = client.encoder
