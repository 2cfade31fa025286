"""What workers make of their rows, without a cluster."""

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colbert_vespa.ray.feeding import _Gathered
from colbert_vespa.ray.rows import BadRow, documents_of
from colbert_vespa.ray.shipping import ShippedBundle
from feeder.encoding.passages import Splitting
from feeder.sources import ColumnMapping
from late_interaction.encoder import Encoder
from late_interaction.errors import BundleError, CollectionError, MissingDependency, UsageError

TEXT = "One sentence of some words stands here. Another one of some words stands here. A third one of words."
SENTENCES = Splitting("sentences", 16, 0)


def table(count=5, **more):
    columns = {
        "id": [f"d{n}" for n in range(count)],
        "title": ["a title"] * count,
        "text": [f"{n}. {TEXT}" for n in range(count)],
    }
    return pa.table(columns | {"year": list(range(count))} | more)


def joined(parts):
    return pa.concat_tables(list(parts))


def told(*rows):
    """The ledger of what feeding workers gave back, and the refused rows."""
    gathered = _Gathered("http://vespa:8080", "put", keep=list)
    for row in rows:
        gathered.add(row)
    summary = gathered.summary()
    parts = summary.acknowledged + summary.already_there + summary.dead_lettered + summary.skipped_blank
    assert parts + summary.duplicates + summary.absent + summary.pending == summary.documents
    return summary


def refused(*rows):
    found = [pa.ipc.open_stream(item).read_all() for row in rows for item in row["refused"].to_pylist() if item is not None]
    return pa.concat_tables(found).to_pylist() if found else []


def test_encoding_adds_the_rows_of_each_passage(encoder, tiny_bundle):
    made = joined(encoder(SENTENCES)(table(3)))
    assert made.column_names == ["id", "title", "text", "year", "vectors", "encoded"]
    own = Encoder(tiny_bundle, precision="fp32", threads=1)
    for row in made.to_pylist():
        places = [(place["start"], place["end"]) for place in row["encoded"]["passages"]]
        texts = [f"{row['title']} {row['text'][start:end]}" for start, end in places]
        assert len(texts) == len(row["vectors"]) > 1
        for rows, expected, ids in zip(row["vectors"], own.encode_documents(texts), row["encoded"]["token_ids"], strict=True):
            np.testing.assert_allclose(np.array(rows), expected, atol=1e-5)
            assert len(ids) == len(rows)


def test_a_large_part_is_encoded_in_parts_of_bounded_size(encoder):
    made = encoder()(table(600))
    first = next(made)
    assert first.num_rows == 256
    assert [part.num_rows for part in made] == [256, 88]


def test_rows_that_cannot_be_documents_say_why(encoder, feeder):
    rows = table(3).set_column(0, "id", pa.array(["a", None, "c"]))
    made = joined(encoder()(rows))
    assert [bool(row["encoded"]["error"]) for row in made.to_pylist()] == [False, True, False]
    answer = feeder()(made)
    summary = told(answer)
    assert (summary.acknowledged, summary.dead_lettered, dict(summary.errors)) == (2, 1, {"refused here": 1})
    letter = refused(answer)[0]
    assert "no id" in letter["refused"]["message"] and letter["text"] == rows["text"][1].as_py()


def test_what_was_encoded_is_fed_as_what_is_encoded_on_the_way(encoder, feeder, vespa):
    assert told(feeder(splitting=SENTENCES)(table(4))).acknowledged == 4
    plain = {id_: json.dumps(item, sort_keys=True) for id_, item in vespa.documents.items()}
    vespa.documents = {"current": vespa.documents["current"]}
    file = io.BytesIO()
    pq.write_table(joined(encoder(SENTENCES)(table(4))), file)
    summary = told(feeder()(pq.read_table(file)))
    assert (summary.acknowledged, summary.passages) == (4, len(plain) - 1)
    assert {id_: json.dumps(item, sort_keys=True) for id_, item in vespa.documents.items()} == plain
    assert told(feeder(splitting=SENTENCES)(table(4))).already_there == 4


def test_half_the_bytes_are_another_digest(encoder, feeder):
    halves = joined(encoder(dtype="float16")(table(2)))
    assert "halffloat" in str(halves.schema.field("vectors").type)
    assert told(feeder()(halves)).acknowledged == 2
    assert told(feeder()(halves)).already_there == 2
    assert told(feeder()(table(2))).already_there == 0


def test_ready_vectors_of_other_makers_are_fed_as_they_are(feeder, vespa):
    rows = np.zeros((2, 3, 16), np.float32)
    rows[:, :, 0] = 1
    rows[1, 2] = 0
    columns = table(2, vectors=pa.array([list(one) for one in rows.tolist()], pa.list_(pa.list_(pa.float32(), 16))))
    answer = feeder()(columns)
    assert (told(answer).acknowledged, told(answer).dead_lettered) == (1, 1)
    assert "only zeros" in refused(answer)[0]["refused"]["message"]
    assert "d0#0" in vespa.documents


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["vectors"]), "keep both"),
        (lambda t: t.set_column(5, "encoded", pa.array([{"by": "other"}] * 2)), "not made by encode"),
        (lambda t: t.set_column(5, "encoded", with_basis(t, "other")), "not encoded with"),
    ],
)  # fmt: skip
def test_vectors_of_another_bundle_end_the_run(encoder, feeder, change, message):
    made = joined(encoder()(table(2)))
    gathered = _Gathered("http://vespa:8080", "put", list)
    gathered.add(feeder()(change(made)))
    assert isinstance(gathered.error, CollectionError) and message in str(gathered.error)
    assert gathered.summary().pending == 2


def with_basis(made, by):
    return pa.array([row | {"by": by} for row in made["encoded"].to_pylist()], made["encoded"].type)


def test_passages_that_do_not_fit_their_text_are_refused(encoder, feeder):
    made = joined(encoder()(table(2)))
    changed = made.set_column(2, "text", pa.array(["", made["text"][1].as_py()]))
    answer = feeder()(changed)
    assert told(answer).dead_lettered == 1
    assert "do not match" in refused(answer)[0]["refused"]["message"]


def test_refused_rows_are_fed_again_as_they_were_given(feeder, vespa):
    vespa.faults["d1#0"] = [400]
    answer = feeder()(table(3))
    assert told(answer).dead_lettered == 1
    again = pa.ipc.open_stream(answer["refused"].to_pylist()[0]).read_all()
    assert again.drop_columns(["refused"]).to_pylist() == table(3).slice(1, 1).to_pylist()
    assert told(feeder()(again)).acknowledged == 1
    assert vespa.documents["d1#0"]["fields"]["year"] == 1


def test_what_vespa_refuses_to_take_ends_the_run_with_the_ledger_so_far(feeder, vespa):
    whole = feeder()(table(2))
    vespa.always = 403
    failed = feeder()(table(5))
    gathered = _Gathered("http://vespa:8080", "put", list)
    gathered.add(whole)
    gathered.add(failed)
    assert "2 acknowledged, 2 already there, 0 dead lettered, 3 pending: feed the dataset again" in str(gathered.error)
    assert type(gathered.error).__name__ == "VespaRefused"


def test_columns_have_names(feeder):
    rows = table(2).rename_columns(["key", "headline", "body", "when"])
    with pytest.raises(CollectionError, match=r"no column of texts \(text, title, vectors\): it has body, headline, key, when"):
        documents_of(rows, ColumnMapping(), texts=True)
    named = documents_of(rows, ColumnMapping("key", ("headline",), ("body",), ("when",), {"when": "year"}), texts=True)
    assert [(row.id, row.title, dict(row.metadata)) for row in named] == [
        ("d0", "a title", {"year": 0}),
        ("d1", "a title", {"year": 1}),
    ]
    assert all(isinstance(row, BadRow) for row in documents_of(rows, ColumnMapping("nothing", text=("body",)), texts=True))


def test_a_machine_without_the_bundle_gets_a_copy(tiny_bundle, monkeypatch, tmp_path):
    import ray

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ray, "get", lambda reference: np.fromfile(reference, np.uint8))
    files = {name: str(tiny_bundle.path / name) for name in (*tiny_bundle.manifest.files, "manifest.json")}
    away = ShippedBundle(tmp_path / "away", tiny_bundle.sha256, files)
    copied = away.open()
    assert copied.sha256 == tiny_bundle.sha256 and copied.path.is_relative_to(tmp_path)
    assert away.open().path == copied.path
    (copied.path / "tokenizer.json").write_text("{}")
    assert away.open().sha256 == tiny_bundle.sha256
    broken = ShippedBundle(tmp_path / "away", "0" * 64, files)
    with pytest.raises(BundleError):
        broken.open()


def test_workers_are_checked():
    from colbert_vespa.ray import Workers

    for wrong in ({"count": 0}, {"batch": 2.5}, {"cpus": float("nan")}, {"cpus": 0}, {"device": "auto"}, {"device": "abacus"}):
        with pytest.raises(UsageError):
            Workers(**wrong)
    assert Workers(cpus=0, gpus=1).gpus == 1


def test_an_install_without_ray_says_what_to_install(tiny_bundle, monkeypatch):
    from colbert_vespa.ray import encode

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        MissingDependency, match=r"needs ray(\.data)?, which is not installed: pip install 'colbert-vespa\[ray\]'"
    ):
        encode([], tiny_bundle)
