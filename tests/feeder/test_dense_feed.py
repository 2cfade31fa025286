"""Dense vectors beside token vectors: made in one pass, here and in workers, or ready-made with the document."""

from __future__ import annotations

import dataclasses
import json
import re
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from dense_bundles import made_bundle, with_dense
from ready import ready_bundle, unit_rows

from feeder import FeedOptions, feed, open_sources
from feeder.digests import Digests
from feeder.encoding.batches import HereEncoding, Text
from feeder.encoding.passages import MARK, Splitting
from feeder.encoding.ready import DocumentEncoding
from feeder.encoding.workers import WorkerEncoding
from feeder.feeding.dead_letters import DeadLetterSource
from feeder.sources.records import ColumnMapping, SourceSettings
from late_interaction.bundle import DensePart, write_manifest
from late_interaction.dense import DenseEncoder, dense_encoders
from late_interaction.documents import Document, passage_text
from late_interaction.errors import UsageError
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.tokenizing import Tokenizing

MODELS = {"dense": 16, "small": 4}
MARKED = Splitting("marked")
DOCUMENTS = [
    Document("a", "Trees", f"oaks are old{MARK}elms are tall{MARK}ash"),
    Document("b", text="a short one"),
    Document("c", "A title alone"),
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return made_bundle(tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture(scope="module")
def bundle(tokens, tmp_path_factory):
    return with_dense(tokens, tmp_path_factory.mktemp("dense") / "bundle", MODELS)


@pytest.fixture(scope="module")
def given(tokens, tmp_path_factory):
    """A dense model with a graph, and one whose vectors come with the documents."""
    return with_dense(tokens, tmp_path_factory.mktemp("given") / "bundle", {"small": 4}, ready={"given": 3})


@pytest.fixture
def fed(tmp_path, bundle):
    def go(documents, **options):
        how = {"bundle": bundle, "journal": tmp_path / "journal", "storage": Storage("float32"), "splitting": MARKED}
        return feed(documents, FeedOptions(to=tmp_path / "index", **how | options))

    return go


def stored(tmp_path, *passage_ids):
    return LocalIndex.open(tmp_path / "index").dense_vectors(passage_ids)


def check_stored(tmp_path, bundle, documents):
    for document in documents:
        parts = document.text.split(MARK)
        ids = [f"{document.id}#{number}" for number in range(len(parts))]
        found = stored(tmp_path, *ids)
        for name in bundle.manifest.dense:
            wanted = DenseEncoder(bundle, name).encode_documents([passage_text(document.title, part) for part in parts])
            rows = np.stack([found[id_][name] for id_ in ids])
            assert (rows * wanted).sum(axis=1).min() > 0.999  # int8 in the index


def test_every_passage_gets_a_vector_of_each_model(tmp_path, bundle, fed):
    assert fed(DOCUMENTS).acknowledged == 3
    check_stored(tmp_path, bundle, DOCUMENTS)


def test_workers_make_the_same(tmp_path, bundle):
    texts = [Text(d.title, d.text, dense=tuple(MODELS)) for d in DOCUMENTS]
    texts += [
        Text("t", "abcd", ((0, 2), (2, 4)), ("small",)),
        Text("", "without"),
        Text("", f"{MARK}a" * 5000, None, ("dense",)),
    ]
    here = HereEncoding(MARKED, Tokenizing(bundle), None, dense_encoders(bundle))
    there = WorkerEncoding(bundle, "fp32", MARKED, 1)
    try:
        for own, other in zip(here.submit(texts).result(60), there.submit(texts).result(120), strict=True):
            assert (own.ranges, own.error, list(own.dense)) == (other.ranges, other.error, list(other.dense))
            for name, rows in own.dense.items():
                assert rows.shape == (len(own.ranges), MODELS[name])
                np.testing.assert_allclose(rows, other.dense[name], atol=1e-6)
        assert [len(item.dense) for item in here.submit(texts).result(60)] == [2, 2, 2, 1, 0, 0]
    finally:
        here.close()
        there.close()


def test_a_document_brings_its_vectors_and_none_is_made(tmp_path, given, fed, monkeypatch):
    monkeypatch.setattr(DenseEncoder, "encode_documents", lambda *_: pytest.fail("it has them all"))
    three, one = unit_rows(3, dim=3), unit_rows(1, dim=3)[0]
    documents = [
        Document("a", text=f"x{MARK}y{MARK}z", dense={"given": three, "small": unit_rows(3, dim=4)}),
        Document("b", text="w", dense={"given": one.tolist(), "small": unit_rows(1, dim=4)}),
    ]
    assert fed(documents, bundle=given).acknowledged == 2
    found = stored(tmp_path, "a#0", "a#1", "a#2", "b#0")
    for id_, row in zip(("a#0", "a#1", "a#2", "b#0"), [*three, one], strict=True):
        np.testing.assert_allclose(found[id_]["given"], row, atol=0.01)


def test_what_a_document_lacks_is_made_and_what_nothing_can_make_is_refused(tmp_path, given, fed):
    good, bad = Document("a", text="x", dense={"given": unit_rows(1, dim=3)}), Document("b", text="y")
    summary = fed([good, bad], bundle=given)
    assert (summary.acknowledged, summary.dead_lettered) == (1, 1)
    assert "it has no vector of dense model 'given', which has no graph" in Path(summary.dead_letter_file).read_text()
    wanted = DenseEncoder(given, "small").encode_documents(["x"])[0]
    assert stored(tmp_path, "a#0")["a#0"]["small"] @ wanted > 0.999


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ({"small": np.ones((1, 5))}, r"dense model 'small': .*\[passages, 4\].*\[1, 5\]"),
        ({"small": [1, 0, 0]}, "dense model 'small': .* 3 numbers; .* 4 numbers"),
        ({"small": unit_rows(2, dim=4)}, "2 vectors of dense model 'small' but 1 passages"),
        ({"small": [np.nan, 0, 0, 1]}, "dense model 'small': vector 0 .*NaN"),
        ({"small": [0, 0, 0, 2]}, "dense model 'small': vector 0 has length 2"),
        ({"other": [1.0]}, "dense model 'other', .*: dense, small"),
    ],
)
def test_vectors_that_cannot_be_are_dead_letters_that_can_be_fed_again(fed, dense, message):
    summary = fed([Document("a", text="x", dense=dense), Document("b", text="y")])
    assert (summary.acknowledged, summary.dead_lettered) == (1, 1)
    letters = Path(summary.dead_letter_file)
    refused = json.loads(letters.read_text().splitlines()[1])["message"]
    assert re.search(message, refused), refused
    (again,) = DeadLetterSource(letters)
    for name, rows in dense.items():
        np.testing.assert_array_equal(again.dense[name], np.asarray(rows, np.float32))


def test_a_dense_vector_that_is_not_numbers_is_a_dead_letter_and_the_feed_goes_on(tmp_path, fed):
    assert fed([Document("a", text="tea"), Document("b", text="milk")]).acknowledged == 2
    wrong = {"a": "text", "c": [], "d": ["x", 1], "e": [[1], [1, 2]], "f": {"x": 1}, "g": [[]]}
    lines = [{"id": id_, "text": "tea", "dense": {"small": given}} for id_, given in wrong.items()]
    lines += [{"id": "h", "text": "tea", "dense": [0.5, "x"]}, {"id": "i", "text": "tea", "embedding": "text"}]
    lines += [{"id": "b", "text": "milk"}, {"id": "j", "text": "water", "dense": {"small": [0, 0, 0, 1]}}]
    source = tmp_path / "records.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = SourceSettings(ColumnMapping(dense={"small": "embedding"}))
    summary = fed(open_sources([str(source)], settings)[0])
    assert (summary.acknowledged, summary.already_there, summary.dead_lettered) == (1, 1, 8)
    letters = Path(summary.dead_letter_file)
    refused = [json.loads(line) for line in letters.read_text().splitlines()[1:]]
    assert {letter["id"]: letter["document"]["dense"] for letter in refused} == {
        **{id_: {"small": given} for id_, given in wrong.items()}, "h": {"dense": [0.5, "x"]}, "i": {"small": "text"},
    }  # fmt: skip
    assert all("dense model '" in letter["message"] for letter in refused)
    assert not any("rows of numbers" in letter["message"] for letter in refused)
    again = fed(DeadLetterSource(letters), dead_letters=tmp_path / "again.jsonl", journal=tmp_path / "second")
    assert (again.acknowledged, again.dead_lettered) == (0, 8)
    with pytest.raises(UsageError, match="numbers"):
        Document("a", text="tea", dense={"small": "text"})


def test_token_vectors_and_dense_vectors_that_were_both_made_elsewhere(tmp_path, fed):
    folder = with_dense_parts(tmp_path)
    good = Document("a", vectors=[unit_rows(2)], dense={"given": unit_rows(1, dim=3)})
    summary = fed([good, Document("b", vectors=[unit_rows(2)])], bundle=folder)
    assert (summary.acknowledged, summary.dead_lettered) == (1, 1)
    np.testing.assert_allclose(stored(tmp_path, "a#0")["a#0"]["given"], unit_rows(1, dim=3)[0], atol=0.01)


def with_dense_parts(tmp_path):
    made = ready_bundle(tmp_path / "bundle")
    return write_manifest(made.path, dataclasses.replace(made.manifest, dense={"given": DensePart("elsewhere", 3)}))


def test_ready_token_vectors_and_a_dense_model_that_encodes(bundle):
    """Its text makes the dense vectors alone; without a text they cannot be made."""
    seen = []

    class Noting:
        ahead = 1

        def submit(self, batch):
            seen.extend(batch)
            done = Future()
            done.set_result(here.submit(batch).result(60))
            return done

        def close(self):
            here.close()

    here = HereEncoding(Splitting(), Tokenizing(bundle), None, dense_encoders(bundle))
    encoding = DocumentEncoding(Noting(), bundle, Splitting())
    rows = unit_rows(5)
    with_text, without = encoding.submit([Document("a", text="x", vectors=[rows]), Document("b", vectors=[rows])]).result(60)
    encoding.close()
    assert [(item.ranges, item.dense) for item in seen] == [(((0, 1),), ("dense", "small"))]
    np.testing.assert_array_equal(with_text.vectors[0], rows)
    assert {name: matrix.shape for name, matrix in with_text.dense.items()} == {"dense": (1, 16), "small": (1, 4)}
    assert without.error.startswith("it has no text to make its vector of dense model 'dense'")


def test_a_feed_goes_on_where_it_was_and_feeds_what_has_changed(tmp_path, given, fed):
    row, other = unit_rows(2, dim=3)
    documents = [Document(id_, text="x", dense={"given": row}) for id_ in "ab"]
    fed(documents, bundle=given)
    again = fed(documents, bundle=given)
    assert (again.acknowledged, again.already_there) == (0, 2)
    changed = fed([Document("a", text="x", dense={"given": other}), documents[1]], bundle=given)
    assert (changed.acknowledged, changed.already_there) == (1, 1)
    np.testing.assert_allclose(stored(tmp_path, "a#0")["a#0"]["given"], other, atol=0.01)


def test_another_graph_of_a_dense_model_makes_its_vectors_again(tmp_path, tokens, fed, monkeypatch):
    """The token model has one graph, so that the device decides on the dense model's alone."""
    made = with_dense(tokens, tmp_path / "graphs", {"small": 4})
    part = made.manifest.dense["small"]
    graphs = {"fp32": part.models["fp32"], "int8": part.models["fp32"]}
    parts = {"small": dataclasses.replace(part, models=graphs)}
    both = write_manifest(made.path, dataclasses.replace(made.manifest, dense=parts))
    assert fed(DOCUMENTS, bundle=both).acknowledged == 3
    assert fed(DOCUMENTS, bundle=both).already_there == 3
    monkeypatch.setattr("late_interaction.dense.best_precision", lambda *_: "fp32")
    assert fed(DOCUMENTS, bundle=both).acknowledged == 3


def test_digests_of_documents_without_dense_vectors_are_what_they_were():
    digests = Digests("made", "kept")
    assert digests.of(Document("a", "t", "x", {"year": 1}), {"year": 1}) == "b726fa8be3f394938d1049b679f076ab"
    some = digests.of(Document("a", dense={"x": [1.0]}), {})
    assert len({some, digests.of(Document("a"), {}), digests.of(Document("a", dense={"y": [1.0]}), {})}) == 3


def test_columns_of_sources(tmp_path):
    lines = [
        {"id": "a", "text": "x", "embedding": [1.0, 2.0]},
        {"id": "b", "text": "y", "dense": {"other": [[1.0], [2.0]]}},
        {"id": "c", "text": "z", "dense": "a word"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = SourceSettings(ColumnMapping(dense={"model": "embedding"}))
    found = list(open_sources([str(tmp_path / "a.jsonl")], settings)[0])
    assert [{name: rows.tolist() for name, rows in d.dense.items()} for d in found] == [
        {"model": [1.0, 2.0]}, {"other": [[1.0], [2.0]]}, {},
    ]  # fmt: skip
    assert [d.metadata for d in found] == [{}, {}, {"dense": "a word"}]


def test_a_list_column_of_parquet_is_a_vector(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"id": ["a", "b"], "text": ["x", "y"], "e": pa.array([[0.5, 0.5], None], pa.list_(pa.float16()))})
    parquet.write_table(table, tmp_path / "a.parquet")
    settings = SourceSettings(ColumnMapping(dense={"m": "e"}))
    first, second = open_sources([str(tmp_path / "a.parquet")], settings)[0]
    assert (first.dense["m"].tolist(), dict(second.dense)) == ([0.5, 0.5], {})
