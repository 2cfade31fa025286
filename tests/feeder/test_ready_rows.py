"""Documents that bring their vectors: from every kind of array to the index, or to the dead letters with the reason."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from ready import DIM, ready_bundle, unit_rows

from feeder import FeedOptions, feed, open_sources
from feeder.digests import Digests
from feeder.encoding.passages import MARK, Splitting
from feeder.feeding.dead_letters import DeadLetterSource
from feeder.sources.records import ColumnMapping, SourceSettings
from late_interaction.documents import Document
from late_interaction.errors import BundleError, CollectionError, MetadataError, UsageError
from late_interaction.plaid import LocalIndex, Storage
from late_interaction.ready_rows import RowRules, array_of, matrices_of, packed_array
from late_interaction.tokenizing import Tokenizing

EXACT = Storage("float32")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return ready_bundle(tmp_path_factory.mktemp("ready") / "bundle")


@pytest.fixture
def fed(tmp_path, bundle):
    def go(documents, **options):
        how = {"bundle": bundle, "journal": tmp_path / "journal", "storage": EXACT} | options
        return feed(documents, FeedOptions(to=tmp_path / "index", **how))

    return go


def stored(tmp_path, passage_id):
    return LocalIndex.open(tmp_path / "index").vectors(passage_id)


def arrow_types():
    pa = pytest.importorskip("pyarrow")
    rows = pa.list_(pa.float32())
    return {
        "lists": pa.list_(rows),
        "large lists of float16": pa.large_list(pa.list_(pa.float16(), DIM)),
        "fixed-size lists of float64": pa.list_(pa.list_(pa.float64(), DIM)),
        "one row after the other": rows,
    }


@pytest.mark.parametrize("kind", ["lists", "large lists of float16", "fixed-size lists of float64", "one row after the other"])
def test_arrays_of_parquet_files_become_rows(tmp_path, fed, kind):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    type_ = arrow_types()[kind]
    own = [unit_rows(3 + n, n) for n in range(9)]
    flat = type_.value_type == pa.float32()
    cells = [D.ravel() if flat else list(D.astype(np.float16) if "16" in kind else D) for D in own]
    columns = {"id": [f"d{n}" for n in range(9)], "vectors": pa.array(cells, type_), "scores": [[0.5, 0.25]] * 9}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=4)
    source = open_sources([str(tmp_path / "a.parquet")])[0]
    assert [document.metadata for document in source] == [{"scores": [0.5, 0.25]}] * 9
    assert fed(source).acknowledged == 9
    for n, D in enumerate(own):
        np.testing.assert_allclose(stored(tmp_path, f"d{n}#0"), D, atol=1e-3 if "16" in kind else 0)


def test_rows_of_several_lengths_are_told_by_their_place_and_others_can_be_fed(tmp_path, fed):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather

    cells = [[[1.0] + [0.0] * (DIM - 1)], [[1.0, 0.0], [1.0]], [None, [1.0, 0.0]], None]
    table = pa.table({"id": ["a", "b", "c", "d"], "text": list("wxyz"), "vectors": cells})
    feather.write_feather(table, tmp_path / "a.arrow")
    with pytest.raises(CollectionError, match=r"a\.arrow:2: rows of vectors have several lengths: 1, 2"):
        list(open_sources([str(tmp_path / "a.arrow")])[0])
    source = open_sources([str(tmp_path / "a.arrow")], SourceSettings(skip_bad=True))[0]
    found = list(source)
    assert [(d.id, len(d.vectors)) for d in found] == [("a", 1), ("d", 0)]
    assert source.report.notes[0].count == 2
    summary = fed(found)
    assert (summary.acknowledged, summary.dead_lettered) == (1, 1)  # d has a text alone


def test_json_lines_have_lists_or_base64(tmp_path, fed):
    D = unit_rows(4)
    halves = (D.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16
    forms = {
        "lists": D.tolist(),
        "text": base64.b64encode(D.tobytes()).decode(),
        "float16": packed_array(D.astype(np.float16)),
        "bfloat16": {"dtype": "bfloat16", "shape": [4, DIM], "base64": base64.b64encode(halves.tobytes()).decode()},
        "passages": [packed_array(D), packed_array(D[:2])],
    }
    lines = [json.dumps({"id": name, "vectors": form}) for name, form in forms.items()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert fed(open_sources([str(tmp_path / "a.jsonl")])[0]).passages == 6
    for name in forms:
        np.testing.assert_allclose(stored(tmp_path, f"{name}#0"), D, atol=4e-3)
    assert len(stored(tmp_path, "passages#1")) == 2


WRONG = {
    "another dimension": (unit_rows(3)[:, :-1], "[t, 16] for this bundle, got [3, 15]"),
    "no row": (np.zeros((0, DIM)), "shape [0, 16]"),
    "too many rows": (unit_rows(2049), "2,049 rows; the limit is 2,048"),
    "NaN": (np.where(np.eye(3, DIM) > 0, np.nan, unit_rows(3)), "row 0 of the vectors contains NaN"),
    "overflow": (unit_rows(1).astype(float) * 1e300, "row 0 of the vectors contains NaN"),
    "padding": (np.vstack([unit_rows(2), np.zeros((1, DIM))]), "row 2 of the vectors"),
    "not normalised": (unit_rows(1) * 3, "row 0 of the vectors has length 3"),
}


def test_what_is_wrong_becomes_a_dead_letter_and_can_be_fed_again(tmp_path, fed):
    documents = [Document(name, vectors=rows.astype(np.float64)) for name, (rows, _) in WRONG.items()]
    summary = fed([*documents, Document("good", vectors=unit_rows(2)), Document("bare", text="no vectors")])
    assert (summary.acknowledged, summary.dead_lettered) == (1, len(WRONG) + 1)
    letters = [json.loads(line) for line in Path(summary.dead_letter_file).read_text().splitlines()[1:]]
    told = {letter["id"]: letter["message"] for letter in letters}
    for name, (_, message) in WRONG.items():
        assert message in told[name]
    assert told["bare"].startswith("it has no vectors, and the bundle has no model")
    again = {document.id: document for document in DeadLetterSource(tmp_path / "journal.dead.jsonl")}
    np.testing.assert_array_equal(again["padding"].vectors[0], WRONG["padding"][0].astype(np.float32))


def test_a_second_feed_sends_only_what_has_other_vectors(fed):
    documents = [Document(f"d{n}", vectors=unit_rows(2, n)) for n in range(5)]
    assert fed(iter(documents)).acknowledged == 5  # an iterator is spooled
    changed = [Document(d.id, vectors=d.vectors[0].astype(np.float64).tolist()) for d in documents[:4]]
    summary = fed([*changed, Document("d4", vectors=unit_rows(2, 9))])
    assert (summary.already_there, summary.acknowledged) == (4, 1)


def test_digests_of_documents_without_vectors_are_as_they_were():
    digests = Digests("made", "kept")
    assert digests.of(Document("a", "t", "x", {"n": 1}), {"n": 1}) == "1847ba92174ac23b6c5beec679f076ab"
    assert digests.of(Document("a", "t", "x", vectors=unit_rows(1)), {}) != digests.of(Document("a", "t", "x"), {})


def test_several_passages_have_their_texts_between_marks(tmp_path, fed):
    pages = [unit_rows(2, n) for n in range(3)]
    marked = Document("marked", text=MARK.join("abc"), vectors=pages)
    summary = fed([marked, Document("images", vectors=np.stack(pages))], splitting=Splitting("marked"))
    assert summary.passages == 6
    index = LocalIndex.open(tmp_path / "index")
    assert [p.text for p in sorted(index.passages_of(["marked"])["marked"], key=lambda p: p.id)] == ["a", "b", "c"]
    np.testing.assert_array_equal(index.vectors("images#2"), pages[2])
    wrong = fed([Document("x", text="one text", vectors=pages)])
    assert wrong.dead_lettered == 1


def test_a_bundle_with_a_model_takes_both(tmp_path, tiny_bundle, fed):
    D = unit_rows(40)
    documents = [Document("text", text="wait for a thread"), Document("ready", text="a page", vectors=D)]
    assert fed(documents, bundle=tiny_bundle).acknowledged == 2
    np.testing.assert_array_equal(stored(tmp_path, "ready#0"), D)
    assert len(stored(tmp_path, "text#0")) > 2
    fitting = fed([Document("other", vectors=unit_rows(3, dim=8))], bundle=tiny_bundle)
    assert fitting.dead_lettered == 1


def test_a_feed_without_any_vectors_is_refused_before_an_index_is_made(tmp_path, fed):
    with pytest.raises(CollectionError, match="no document has vectors, and bundle .* has no model"):
        fed([Document("a", text="words")])
    with pytest.raises(CollectionError, match=r"none has text to index.*\[columns\] vectors"):
        fed([Document("a")])
    assert not (tmp_path / "index").exists()


def test_a_column_of_rows_by_another_name_is_told_how_to_be_named(tmp_path, fed):
    with pytest.raises(MetadataError, match=r"'embedding' of document 'a' is list.*\[columns\] vectors = 'embedding'"):
        fed([Document("a", vectors=unit_rows(2)), Document("a", metadata={"embedding": unit_rows(2).tolist()})])


def test_paths_of_a_feed_may_be_texts(tmp_path, fed):
    letters = str(tmp_path / "letters")
    summary = fed([Document("a", vectors=[unit_rows(2, dim=3)])], journal=str(tmp_path / "j"), dead_letters=letters)
    assert (summary.dead_lettered, summary.dead_letter_file) == (1, letters)


def test_a_bundle_without_a_model_encodes_nothing(bundle):
    with pytest.raises(BundleError, match="has no model"):
        Tokenizing(bundle)
    with pytest.raises(BundleError, match="has no model"):
        bundle.model_path("fp32")
    with pytest.raises(BundleError, match="has no model"):
        _ = bundle.default_precision


def test_rows_that_are_not_normalised_need_a_codec_that_keeps_them(tmp_path, fed):
    raw = ready_bundle(tmp_path / "raw", normalized=False)
    with pytest.raises(UsageError, match="codec residual"):
        fed([Document("a", vectors=unit_rows(2) * 5)], bundle=raw, storage=None)
    assert fed([Document("a", vectors=unit_rows(2) * 5)], bundle=raw).acknowledged == 1
    np.testing.assert_array_equal(stored(tmp_path, "a#0"), unit_rows(2) * 5)
    with pytest.raises(UsageError, match="rows shorter than 1,000"):
        RowRules(DIM, unit=False).checked(unit_rows(1) * 2000)


@pytest.mark.parametrize(
    "value",
    ["words", {"dtype": "float32"}, {"dtype": "int9", "shape": [1], "base64": ""}, [["a"]], [[1.0], [1.0, 2.0]], [[None]], 1.0]
    + [{"dtype": "float32", "shape": shape, "base64": "AAAAAA=="} for shape in ([2], [-1], [], "1", [True])],
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_refused(tmp_path, value):
    with pytest.raises(UsageError):
        array_of(value, "it")
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "text": "b", "vectors": value}))
    with pytest.raises(CollectionError, match=r"a\.jsonl:1: vectors"):
        list(open_sources([str(tmp_path / "a.jsonl")])[0])
    other = SourceSettings(ColumnMapping(vectors="", metadata=()))
    assert not list(open_sources([str(tmp_path / "a.jsonl")], other)[0])[0].vectors


def test_forms_of_python():
    D = unit_rows(2)
    forms = (None, (), D, D.tolist(), list(D), [D, D], np.stack([D, D]), D.ravel())
    assert [len(matrices_of(form, "it")) for form in forms] == [0, 0, 1, 1, 1, 2, 2, 1]
    assert [len(matrices_of(form, "it")) for form in ([D.tolist(), D[:1].tolist()], tuple(D), [])] == [2, 1, 1]
    once = Document("a", vectors=D.ravel())
    assert Document("a", vectors=once.vectors).vectors is once.vectors
